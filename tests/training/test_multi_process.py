"""Several real processes on loopback are one run: the same numbers, one end for all of them."""

from __future__ import annotations

import json
import signal
import socket

import numpy as np
import pytest
from conftest_training import run
from training_worker import RESULT, launch, losses, make_config, make_model, penalty

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.classification import classification, make_predict
from adaptive_nets.training.config import DistributedConfig, MeshConfig
from adaptive_nets.training.distributed import LOST_PEER_EXIT_CODE, start
from adaptive_nets.training.mesh import make_mesh


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses, predictions and final values of one process with four devices."""
    from conftest_training import make_dataset

    directory = tmp_path_factory.mktemp("alone")
    model = make_model()
    result = run(
        make_config({}), make_dataset(), directory, seed=3, model=model,
        task={"objective": lambda timing: classification(penalty=penalty)},
    )  # fmt: skip
    variables = result.state.eval_variables
    predicted = make_predict(model)(variables, result.test)
    return losses(directory), predicted.tolist(), result.evaluate(variables, result.test)


def assert_as_alone(directory, alone):
    expected, predicted, values = alone
    found = losses(directory)
    assert list(found) == list(expected) == list(range(1, 51))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)
    result = json.loads((directory / RESULT).read_text())
    # Image by image; no example is counted twice or dropped.
    assert result["predicted"] == predicted
    assert len(predicted) == result["count"] == 22
    assert result["error"] == values["error"]
    assert result["nll"] == pytest.approx(values["nll"], rel=1e-5)
    return result


@pytest.mark.slow
def test_two_processes_stop_together_go_on_and_end_as_one_would(alone, tmp_path):
    """A signal to one of them saves all of them at the same step."""
    stopped = launch(
        tmp_path, processes=2, devices=2, signal=signal.SIGTERM, signal_at=2, signalled=1
    )
    assert [p.code for p in stopped] == [128 + signal.SIGTERM] * 2, stopped
    assert list(losses(tmp_path)) == list(range(1, 21))
    assert (tmp_path / "checkpoints" / "20").is_dir()
    finished = launch(tmp_path, processes=2, devices=2)
    assert [p.code for p in finished] == [0, 0], finished
    assert assert_as_alone(tmp_path, alone)["from"] == 20
    # Only the first one writes.
    assert not (tmp_path / "elsewhere").exists()


def assert_told_of_a_lost_process(left, *, process, count, lost, why, directory):
    """One line: which process, which step is safe, the command that resumes."""
    # Whether step 25 is complete when the other process ends depends on the disk.
    names = [path.name for path in (directory / "checkpoints").iterdir()]
    step = max(int(name) for name in names if name.isdigit())
    assert step in (0, 25)
    assert left.code == LOST_PEER_EXIT_CODE, left.output
    (line,) = [line for line in left.output.splitlines() if line.startswith("error: ")]
    assert line == (
        f"error: process {process} of {count} lost process {lost} (host {socket.gethostname()}): "
        f"{why}; step {step} is saved in {directory / 'checkpoints'}; start all processes again "
        "to resume, this one with: train again"
    )
    for noise in ("Traceback", "stack trace", "Terminating process", "[Gloo]"):
        assert noise not in left.output


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_down_with_a_message(tmp_path):
    left, killed = launch(tmp_path, processes=2, signal=signal.SIGKILL, signal_at=3, signalled=1)
    assert killed.code == -signal.SIGKILL
    assert_told_of_a_lost_process(
        left, process=0, count=2, lost=1, why="its connection closed", directory=tmp_path
    )


@pytest.mark.slow
def test_all_others_name_the_one_that_died_first(tmp_path):
    first, killed, third = launch(
        tmp_path, processes=3, signal=signal.SIGKILL, signal_at=3, signalled=1, batch_size=9
    )
    assert killed.code == -signal.SIGKILL
    for process, left in ((0, first), (2, third)):
        assert_told_of_a_lost_process(
            left, process=process, count=3, lost=1, why="its connection closed",
            directory=tmp_path,
        )  # fmt: skip


@pytest.mark.slow
def test_the_loss_of_process_0_is_told_by_the_others(tmp_path):
    killed, left = launch(tmp_path, processes=2, signal=signal.SIGKILL, signal_at=3, signalled=0)
    assert killed.code == -signal.SIGKILL
    assert_told_of_a_lost_process(
        left, process=1, count=2, lost=0, why="its connection closed", directory=tmp_path
    )


@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (1, 1, {}),
                (1, 2, {}),
                (1, 8, {}),
                (2, 1, {}),
                (4, 1, {}),
                (4, 2, {"shard_parameters": True, "shard_from": 0}),
                (2, 4, {"model": 2, "shard_from": 0}),
                (4, 2, {"model": 4, "shard_parameters": True, "shard_from": 0}),
            )
        ),
        (2, 2, {}),
    ],
)
def test_any_number_of_processes_and_any_mesh(alone, tmp_path, processes, devices, mesh):
    finished = launch(tmp_path, processes=processes, devices=devices, mesh=mesh)
    assert [p.code for p in finished] == [0] * processes, finished
    assert_as_alone(tmp_path, alone)
    # Only the first one writes.
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_the_number_of_processes_may_change_on_the_way(alone, tmp_path):
    mesh = {"shard_parameters": True, "shard_from": 0}
    stopped = launch(
        tmp_path, processes=4, mesh=mesh, signal=signal.SIGTERM, signal_at=1, signalled=3
    )
    assert [p.code for p in stopped] == [143] * 4, stopped
    finished = launch(tmp_path, processes=2, devices=2, mesh={"model": 2, "shard_from": 0})
    assert [p.code for p in finished] == [0, 0], finished
    assert assert_as_alone(tmp_path, alone)["from"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_hangs_is_missed(tmp_path, stopped):
    """A stopped process sends no heartbeats, which ends the others."""
    spec = {"signal": signal.SIGSTOP, "signal_at": 3, "signalled": stopped}
    finished = launch(tmp_path, processes=2, hung=stopped, **spec)
    assert finished[stopped].code == -signal.SIGKILL
    assert_told_of_a_lost_process(
        finished[1 - stopped], process=1 - stopped, count=2, lost=stopped,
        why="stopped sending heartbeats" if stopped else "stopped answering", directory=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": 3}, "--mesh.model is 3; expected a divisor of the 4 devices here"),
        ({"data": 4, "model": 2}, "--mesh.data is 4; expected 2, since there are 4 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coordinator": "node0"}, "--distributed.coordinator is 'node0'; expected HOST:PORT"),
        ({"coordinator": "n:1"}, "--distributed.num-processes is None; expected a value"),
        (
            {"coordinator": "n:1", "num_processes": 2, "process_id": 2},
            "--distributed.process-id is 2; expected 0 to 1",
        ),
        ({"heartbeat_seconds": 0}, "--distributed.heartbeat-seconds is 0; expected a positive"),
    ],
)
def test_flags_that_do_not_belong_together_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DistributedConfig(**values)


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(
        UserError, match=r"--distributed\.cluster is 'slurm', which does not identify"
    ):
        start(DistributedConfig(cluster="slurm"))
