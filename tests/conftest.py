"""Strict defaults for every test: four CPU devices, full precision, no silent promotion."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before JAX is imported anywhere. Four devices, so that sharding is not an afterthought.
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little. Processes that they start compile alike, to the last bit.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=4".strip()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

pytest_plugins = ["slow_slices"]

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same programs; within one session, whose workers share the folder, each is
# compiled once.
_SESSION = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"process{os.getpid()}")
_COMPILED = Path(tempfile.gettempdir()) / f"adaptive-nets-tests-{_SESSION}"
jax.config.update("jax_compilation_cache_dir", os.fspath(_COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_default_matmul_precision", "highest")
# What was imported stays; looking through it again and again is a tenth of the time of tracing.
gc.freeze()
gc.set_threshold(200_000, 20, 100)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the compiled programs, once the workers have ended."""
    session = getattr(config.pluginmanager.get_plugin("dsession"), "nodemanager", None)
    name = f"adaptive-nets-tests-{session.testrunuid}" if session else _COMPILED.name
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_COMPILED.with_name(name), ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out slow tests, and those of an accelerator that is not here, each with its reason."""
    platform = jax.default_backend()
    for item in items:
        if "slow" in item.keywords and "slow" not in (config.option.markexpr or ""):
            item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))
        for accelerator in ("gpu", "tpu"):
            if accelerator in item.keywords and platform != accelerator:
                item.add_marker(pytest.mark.skip(reason=f"needs a {accelerator.upper()}"))


@pytest.fixture
def key() -> jax.Array:
    """The PRNG key of a test."""
    return jax.random.key(20170306)


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy's generator of a test."""
    return np.random.default_rng(20170306)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def complains() -> Callable[..., str]:
    """Calls something that must fail with one line that holds every given text."""

    def check(call: Callable[[], object], *texts: object) -> str:
        from adaptive_nets.runtime.errors import UserError

        with pytest.raises(UserError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        for text in texts:
            assert str(text) in message, message
        return message

    return check
