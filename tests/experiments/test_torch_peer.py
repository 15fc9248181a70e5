"""The PyTorch process beside us: what it says when it cannot, and what it times where torch is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.bench.torch_peer import LAYOUTS, ConvJob, NetworkJob, TorchPeer


def interpreter(folder: Path, body: str) -> Path:
    """A program that answers in place of an interpreter with torch."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return path


ECHO = """
print(json.dumps({"torch": "9.9"}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    wrong = job["kind"] == "network"
    answer = {"error": "no such network"} if wrong else {"seconds": job["kernel"][3] + 0.5}
    print(json.dumps(answer), flush=True)
"""


def test_jobs_go_out_and_seconds_come_back(tmp_path):
    with TorchPeer(interpreter(tmp_path, ECHO)) as peer:
        assert peer.version == "9.9"
        assert peer.time(ConvJob((1, 8, 8, 3), (3, 3, 3, 7))) == 7.5
        with pytest.raises(UserError, match="PyTorch: no such network"):
            peer.time(NetworkJob("lenet", (1, 8, 8, 3)))
        assert peer.time(ConvJob((1, 8, 8, 3), (3, 3, 3, 2))) == 2.5


@pytest.mark.parametrize("body", ["raise SystemExit(1)", "import torch_that_is_not_here"])
def test_an_interpreter_without_torch_is_named(tmp_path, body):
    path = interpreter(tmp_path, body)
    with pytest.raises(UserError, match="python cannot import torch; expected an interpreter"):
        TorchPeer(path)


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--torch-python .*nowhere: No such file"):
        TorchPeer(tmp_path / "nowhere")


def test_a_process_that_dies_is_noticed(tmp_path):
    body = 'print(json.dumps({"torch": "9.9"}), flush=True)\nsys.stdin.readline()'
    with (
        TorchPeer(interpreter(tmp_path, body)) as peer,
        pytest.raises(UserError, match="PyTorch process has ended"),
    ):
        peer.time(ConvJob((1, 8, 8, 3), (3, 3, 3, 7)))


def test_pytorch_itself():
    pytest.importorskip("torch")
    with TorchPeer() as peer:
        for layout in LAYOUTS:
            job = ConvJob((2, 9, 9, 8), (3, 3, 4, 6), (2, 2), ((1, 1), (0, 1)), 2, layout)
            assert 0 < peer.time(job) < 1
