"""The whole loop: it learns, and neither interruptions nor devices change what comes out."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_training import (
    StopAt,
    assert_same,
    logged,
    make_config,
    network,
    run,
    with_values,
)
from jax import lax

from adaptive_nets.layers import SparseVDLayers
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training import loop
from adaptive_nets.training.classification import classification


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The result of a run that nothing stopped, and what it logged."""
    folder = tmp_path_factory.mktemp("whole")
    return run(make_config(), dataset, folder), logged(folder)


def test_it_learns_and_writes_what_it_did(whole):
    result, lines = whole
    assert result.timing.total_steps == 30
    assert result.evaluate(result.state.eval_variables, result.test)["error"] < 0.2
    assert result.evaluate(result.state.eval_variables, result.test)["count"] == 22
    assert [x["step"] for x in lines if "train/loss" in x] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [x["step"] for x in lines if "test/error" in x] == [10, 20, 30]
    final = result.evaluate(result.state.variables, result.test)
    assert lines[-1]["test/error"] == final["error"]
    assert [x["epoch"] for x in lines if "train/loss" in x][1] == 1.0


# At the first step, at a checkpoint, and between two.
@pytest.mark.parametrize(
    "stop",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow), 13],
)
def test_a_continued_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    config, dataset, tmp_path, stop
):
    options = {"model": network(layers=SparseVDLayers(), dropout_rate=0.2)}
    config = with_values(
        config,
        data={"crop_padding": 1, "flip": True},
        optimiser={"ema_decay": 0.9},
        schedule={"kind": "cosine", "warmup": "3 steps"},
    )
    whole = run(config, dataset, tmp_path / "whole", **options)
    with pytest.raises(Interrupted) as stopped:
        run(config, dataset, tmp_path / "parts", progress=StopAt(stop), **options)
    assert stopped.value.step >= stop
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    continued = run(config, dataset, tmp_path / "parts", **options)
    assert continued.resumed_from == stopped.value.step
    assert_same(whole.state, continued.state)
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_a_killed_run_goes_on_from_its_last_checkpoint(config, dataset, tmp_path, whole):
    """Nothing is saved at a kill -9; what was logged after the last checkpoint is dropped."""
    with pytest.raises(Interrupted):
        run(config, dataset, tmp_path / "killed", progress=StopAt(17))
    checkpoints = tmp_path / "killed" / "checkpoints"
    newest = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    (checkpoints / str(newest) / "state" / "manifest.ocdbt").unlink()
    shown = []
    progress = SilentProgress()
    progress.show = shown.append
    continued = run(config, dataset, tmp_path / "killed", progress=progress)
    assert continued.resumed_from < newest
    assert f"step {newest}" in shown[0]
    assert f"using step {continued.resumed_from}" in shown[0]
    assert_same(whole[0].state, continued.state)
    assert whole[1] == logged(tmp_path / "killed")


def test_a_lost_log_is_named_and_taken_from_the_checkpoint(config, dataset, tmp_path, whole):
    with pytest.raises(Interrupted):
        run(config, dataset, tmp_path / "parts", progress=StopAt(17))
    before = logged(tmp_path / "parts")
    (tmp_path / "parts" / "metrics.jsonl").unlink()
    shown = []
    progress = SilentProgress()
    progress.show = shown.append
    continued = run(config, dataset, tmp_path / "parts", progress=progress)
    (warning,) = [line for line in shown if line.startswith("warning")]
    assert f"metrics.jsonl has lost {len(before)} of its {len(before)} lines" in warning
    assert_same(whole[0].state, continued.state)
    assert whole[1] == logged(tmp_path / "parts")


def test_a_finished_run_is_not_run_again(config, dataset, tmp_path, monkeypatch):
    first = run(config, dataset, tmp_path)
    again = run(config, dataset, tmp_path)
    assert again.resumed_from == 30
    assert_same(first.state, again.state)


def test_control_c_is_noted_and_a_second_one_stops_at_once(config, dataset, tmp_path):
    class Twice(SilentProgress):
        def update(self, done, values=None):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    # A shell that runs this in the background ignores ^C; what was there comes back either way.
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        run(config, dataset, tmp_path / "once", progress=StopAt(3, signal.SIGINT))
    assert stopped.value.exit_code == 130
    with pytest.raises(KeyboardInterrupt):
        run(config, dataset, tmp_path / "twice", progress=Twice())
    assert signal.getsignal(signal.SIGINT) is before


def test_works_outside_the_main_thread(config, dataset, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(config, dataset, tmp_path)))
    thread.start()
    thread.join()
    assert results[0].timing.total_steps == 30


def test_a_loss_that_is_not_finite_stops_names_the_step_and_keeps_a_good_state(
    config, dataset, tmp_path
):
    trap = [jnp.inf]

    def penalty(params, step):
        return {"trap": jnp.where(step == 20, trap[0], 0.0) * jnp.mean(params["fc1"]["bias"])}

    task = {"objective": lambda timing: classification(penalty=penalty)}
    with pytest.raises(UserError, match=r"not finite at step 20 \(learning rate 0\.01\)") as error:
        run(config, dataset, tmp_path, task=task)
    assert "the state of step 18 is kept" in str(error.value)
    assert "\n" not in str(error.value)
    # The checkpoint is good: once the trap is gone, training goes on from it to where it would have
    # led.
    trap[0] = 0.0
    continued = run(config, dataset, tmp_path, task=task)
    assert continued.resumed_from == 18
    clean = run(config, dataset, tmp_path / "clean", task=task)
    ends = [jax.tree.leaves(result.state.params) for result in (clean, continued)]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_bad_gradient_of_a_good_loss_is_not_saved(config, dataset, tmp_path):
    def penalty(params, step):
        bias = params["fc1"]["bias"][0]
        # At zero the square root has a value and no slope.
        root = lax.cond(step == 17, lambda x: jnp.sqrt(x - x), lambda x: 0.0 * x, bias)
        return {"trap": root}

    with pytest.raises(UserError, match=r"not finite at step 1[78].*the state of step 12 is kept"):
        run(
            config,
            dataset,
            tmp_path,
            task={"objective": lambda timing: classification(penalty=penalty)},
        )


def test_the_number_of_devices_may_change_on_the_way(config, dataset, tmp_path, whole):
    with pytest.raises(Interrupted):
        run(config, dataset, tmp_path / "moved", progress=StopAt(9))
    moved = with_values(config, mesh={"model": 4, "shard_from": 0})
    continued = run(moved, dataset, tmp_path / "moved")
    assert continued.resumed_from >= 9
    for a, b in zip(
        jax.tree.leaves(whole[0].state.params), jax.tree.leaves(continued.state.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_another_network_in_the_same_folder_is_refused(config, dataset, tmp_path):
    run(config, dataset, tmp_path)
    with pytest.raises(UserError, match="of another configuration"):
        run(config, dataset, tmp_path, model=dataclasses.replace(network(), hidden=(9,)))


def test_a_set_without_training_part_is_named(config, dataset, tmp_path):
    with pytest.raises(UserError, match="'quadrants' in memory has no training part"):
        run(config, dataclasses.replace(dataset, train=None), tmp_path)


def test_chosen_steps_are_profiled(config, dataset, tmp_path):
    run(with_values(config, run={"profile": (5, 3)}), dataset, tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_tensorboard_files_hold_the_logged_values(config, dataset, tmp_path):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    run(with_values(config, run={"tensorboard": True}), dataset, tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    written = {
        (event.step, value.tag): value.simple_value
        for event in events
        for value in event.summary.value
    }
    for line in read_json_lines(tmp_path / "metrics.jsonl"):
        for name, value in line.items():
            if name != "step":
                assert written[line["step"], name] == pytest.approx(value, rel=1e-6)


def test_infinite_values_are_null_in_the_lines(config, dataset, tmp_path):
    run(config, dataset, tmp_path, task={"describe": lambda params: {"ratio": float("inf")}})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "Infinity" not in text
    assert json.loads(text.splitlines()[-1])["ratio"] is None


def test_the_parameter_table_is_shown_at_the_start(config, dataset, tmp_path):
    shown = []
    progress = SilentProgress()
    progress.show = shown.append
    run(config, dataset, tmp_path, progress=progress)
    names = list(shown[0].columns[0].cells)
    assert names == ["fc1/bias", "fc1/kernel", "fc2/bias", "fc2/kernel", "total"]


@pytest.mark.parametrize(
    ("count", "seconds", "expected"), [(1, 1.0, 1), (1, 0.001, 4), (64, 0.1, 128), (8, 0.2, 8)]
)
def test_groups_grow_until_they_take_their_time(count, seconds, expected):
    assert loop.next_dispatch_size(count, seconds) == expected
