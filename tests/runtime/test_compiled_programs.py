"""The folder of compiled programs: what is set, what is left alone, and damaged entries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from adaptive_nets.runtime.compiled_programs import keep_compiled_programs

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
PROGRAM = """
import sys
from adaptive_nets.runtime.compiled_programs import keep_compiled_programs
keep_compiled_programs(sys.argv[1])
import jax, jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: jnp.sin(x) + jnp.linalg.norm(x))(jnp.arange(3.0)).sum())
print(sum(event.endswith("cache_hits") for event in events))
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without the variables, which the tests' own session sets otherwise."""
    for name in list(os.environ):
        if name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    # As before JAX is imported.
    monkeypatch.delitem(sys.modules, "jax", raising=False)


def test_a_folder_of_this_processor_is_set(tmp_path):
    keep_compiled_programs(tmp_path / "compiled")
    folder = Path(os.environ[VARIABLE])
    assert folder.is_dir()
    assert folder.parent == tmp_path / "compiled"
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 1e9


def test_a_folder_of_the_user_stays(tmp_path):
    os.environ[VARIABLE] = "elsewhere"
    keep_compiled_programs(tmp_path / "compiled")
    assert os.environ[VARIABLE] == "elsewhere"
    assert not (tmp_path / "compiled").exists()


def test_what_was_configured_in_jax_stays(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", jax)
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    assert before
    keep_compiled_programs(tmp_path / "compiled")
    assert before == jax.config.jax_compilation_cache_dir  # pyright: ignore
    assert VARIABLE not in os.environ


def test_a_place_that_cannot_be_written_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    keep_compiled_programs(tmp_path / "file" / "compiled")
    keep_compiled_programs("~no-such-user-here/compiled")
    assert VARIABLE not in os.environ


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    env = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=True)


def test_the_second_process_compiles_nothing(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    (value, misses), (again, hits) = first.stdout.split(), second.stdout.split()
    assert value == again
    assert int(misses) == 0 < int(hits)


def test_half_written_programs_are_removed_and_damaged_ones_compiled_again(tmp_path):
    value = run(tmp_path).stdout.split()[0]
    entries = sorted(tmp_path.rglob("*-cache"))
    assert entries
    for entry in entries:
        os.truncate(entry, entry.stat().st_size // 2)
    damaged = run(tmp_path)
    assert damaged.stdout.split() == [value, "0"]
    assert "Traceback" not in damaged.stderr
    # As after a kill in the middle of writing: no time of use, and some time ago.
    for entry in entries:
        entry.with_name(entry.name.removesuffix("-cache") + "-atime").unlink()
        os.utime(entry, (0, 0))
    assert run(tmp_path).stdout.split() == [value, "0"]
    assert int(run(tmp_path).stdout.split()[1]) == len(entries)
