"""One process of a training over several: `python training_worker.py '{"process": 0, ...}'`.

Also what starts all of them. Every process trains the same small network on the quadrants.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class Finished:
    """A process that came to its end."""

    code: int
    output: str


def launch(
    directory: Path,
    *,
    processes: int,
    devices: int = 1,
    timeout: float = 240,
    hung: int | None = None,
    **spec: Any,
) -> list[Finished]:
    """Starts so many processes with so many devices each and waits for all of them.

    One that is still there after the timeout, in seconds, is killed; process `hung` is killed as
    soon as the others have ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # As the command line sets it.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # This checkout, not the one that is installed.
        "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS))),
    }
    started = []
    for process in range(processes):
        own = {"directory": str(directory), "process": process, "processes": processes,
               "port": port, **spec}  # fmt: skip
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, json.dumps(own)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    deadline = time.monotonic() + timeout
    finished: dict[int, Finished] = {}
    for index in sorted(range(processes), key=lambda index: index == hung):
        process = started[index]
        left = 1 if index == hung else deadline - time.monotonic()
        try:
            output, _ = process.communicate(timeout=max(left, 1))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        finished[index] = Finished(process.returncode, output)
    return [finished[index] for index in range(processes)]


def losses(directory: Path) -> dict[int, float]:
    """Training loss by step."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def make_config(mesh: dict[str, Any], batch_size: int = 8):
    from adaptive_nets.training import config as c

    return c.TrainConfig(
        # 22 test examples divide neither into batches of 8 nor over 4 devices.
        data=c.DataConfig(batch_size=batch_size, eval_batch_size=8, crop_padding=1, flip=True),
        optimiser=c.OptimiserConfig(name="sgd", learning_rate=0.05),
        schedule=c.ScheduleConfig(length="50 steps", kind="cosine"),
        mesh=c.MeshConfig(**mesh),
        run=c.RunConfig(
            log_every="1 steps", eval_every="10 steps", checkpoint_every="25 steps",
            tensorboard=False,
        ),
    )  # fmt: skip


def make_model():
    from conftest_training import network

    from adaptive_nets.layers import SparseVDLayers

    return network(layers=SparseVDLayers(), dropout_rate=0.2)


def penalty(params, step):
    from adaptive_nets.variational import kl_divergence

    return {"kl": kl_divergence(params) / 7000}


def main(spec: dict[str, Any]) -> None:
    from conftest_training import make_dataset

    from adaptive_nets.runtime.interrupt import Interrupted
    from adaptive_nets.training.classification import (
        classification,
        classification_task,
        make_predict,
    )
    from adaptive_nets.training.config import DistributedConfig
    from adaptive_nets.training.distributed import is_process_0, process_group
    from adaptive_nets.training.loop import train

    asked = 0

    def describe(params):
        """Stands in for what happens from outside: a signal at a known evaluation."""
        nonlocal asked
        asked += 1
        if asked == spec.get("signal_at") and spec["process"] == spec.get("signalled", 0):
            os.kill(os.getpid(), spec["signal"])
        return {}

    distributed = DistributedConfig(
        coordinator=f"127.0.0.1:{spec['port']}",
        num_processes=spec["processes"],
        process_id=spec["process"],
        heartbeat_seconds=10,
        start_seconds=120,
    )
    directory = Path(spec["directory"])
    with process_group(
        distributed, lambda line: print("error:", line, flush=True), folder=directory,
        command="train again",
    ):  # fmt: skip
        if not is_process_0():
            directory = directory / "elsewhere"
        objective = classification(penalty=penalty)
        task = classification_task(make_model(), lambda timing: objective, describe=describe)
        try:
            config = make_config(spec.get("mesh", {}), spec.get("batch_size", 8))
            result = train(
                task, config, dataset=make_dataset(), directory=directory, seed=3,
            )  # fmt: skip
        except Interrupted as stop:
            sys.exit(stop.exit_code)
        if is_process_0():
            variables = result.state.eval_variables
            predicted = make_predict(task.model, batch_size=5)(variables, result.test)
            values = result.evaluate(variables, result.test)
            content = {"predicted": predicted.tolist(), **values, "from": result.resumed_from}
            (directory / RESULT).write_text(json.dumps(content))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
