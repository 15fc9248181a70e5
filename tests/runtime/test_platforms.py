"""A platform in $JAX_PLATFORMS that is absent is told in one line by every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.platforms import absent_platform

ROOT = Path(__file__).parents[2]
ID = "sparse_vd.table1.lenet-300-100-sparse"

# Runs several commands, each as if it were the first of its process.
SCRIPT = """
import sys, jax
from jax.extend.backend import clear_backends
from experiments.__main__ import main
for line in sys.argv[1:]:
    code = main(line.split())
    print(line.split()[0], code, file=sys.stderr)
    jax.config.update("jax_platforms", "PLATFORM")
    clear_backends()
"""


def run_commands(platform, *lines, cwd):
    environment = os.environ | {"JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("PLATFORM", platform), *lines],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "platform",
    [
        pytest.param("cuda", marks=pytest.mark.slow, id="names cuda"),
        pytest.param("tpu", marks=pytest.mark.slow, id="names tpu"),
        pytest.param("rocm", marks=pytest.mark.slow, id="names rocm"),
        pytest.param("nonsense", id="names nonsense"),
    ],
)
def test_commands_name_the_variable_and_what_there_is(tmp_path, platform):
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("a platform of the list is there")
    lines = (
        "doctor", f"run {ID} --preset smoke --data.source embedded", "predict x.png --run runs/x",
        "evaluate lenet_300_100 --weights x --data mnist", "bench kernels", "bench networks",
    )  # fmt: skip
    found = run_commands(platform, *lines, cwd=tmp_path)
    told = found.stderr.splitlines()
    assert len(told) == 2 * len(lines), found.stderr
    for command, message, code in zip(lines, told[::2], told[1::2], strict=True):
        assert message.startswith(
            f"adaptive-nets: $JAX_PLATFORMS is '{platform}', which cannot be used here; "
            "available: cpu ("
        )
        assert code == f"{command.split()[0]} 2"
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []  # Nothing was begun.


def test_other_errors_are_not_of_the_platform():
    assert absent_platform(RuntimeError("anything")) is None
    assert absent_platform(UserError("a mistake")) is None
