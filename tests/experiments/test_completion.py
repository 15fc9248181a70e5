"""Completion of commands, names and flags, and its scripts for shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from adaptive_nets.models import list_models
from experiments.commands import completion, data
from experiments.commands.catalogue import COMMANDS
from experiments.commands.complete import complete
from experiments.suite import config as config_lib
from experiments.suite import registry

ROOT = Path(experiments.__file__).parents[1]
IDS = list(registry.experiments())
FIRST = registry.experiments()[IDS[0]]


def test_completion_knows_commands_ids_names_and_flags():
    assert set(COMMANDS) <= set(complete([""]))
    assert complete(["sho"]) == ["show"]
    assert complete(["show", ""]) == IDS
    assert complete(["run", FIRST.id[:-1]]) == [n for n in IDS if n.startswith(FIRST.id[:-1])]
    assert complete(["run", FIRST.id, "--preset", ""]) == ["smoke", "quick", "paper"]
    assert complete(["run", FIRST.id, "--preset", "=", "q"]) == ["quick"]
    assert complete(["run", FIRST.id, "--preset=q"]) == ["--preset=quick"]
    values = config_lib.flat(config_lib.to_dict(FIRST.presets["quick"].config))
    assert {config_lib.flag(name) for name in values} <= set(complete(["run", FIRST.id, "--"]))
    assert "--job.nodes" in complete(["launch", "slurm", FIRST.id, "--job."])
    assert complete(["models", "lenet5_c"]) == list_models("lenet5_c*")
    assert complete(["evaluate", "lenet5", "--data", "mni"]) == ["mnist"]
    assert complete(["data", ""])[:4] == list(data.FORMS)
    assert complete(["data", "check", "mni"]) == ["mnist"]
    assert "--json" in complete(["list", "--"])
    assert complete(["bench", "kernels", "--dtype", "bf"]) == ["bfloat16"]
    assert complete(["nothing", ""]) == []


def test_bash_completes_with_the_script(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    installed = tmp_path / "adaptive-nets"
    installed.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m experiments "$@"\n')
    installed.chmod(0o755)
    script = tmp_path / "try.sh"
    script.write_text(
        'eval "$(adaptive-nets completion bash)"\n'
        f"COMP_WORDS=(adaptive-nets show {FIRST.id[:-1]}); COMP_CWORD=2\n"
        "_adaptive_nets\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
        "complete -p adaptive-nets\n"
    )
    done = subprocess.run(
        [bash, script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *found, registered = done.stdout.splitlines()
    assert FIRST.id in found
    assert "-F _adaptive_nets adaptive-nets" in registered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_shells_that_are_here_accept_their_script(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    path = tmp_path / "script"
    path.write_text(completion.SHELLS[shell])
    subprocess.run([shell, "-n", path], check=True)
