"""Times jobs in PyTorch, in a process of an interpreter that has it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from adaptive_nets.runtime.errors import UserError
from kernels._common.layer_shapes import Layer

_WORKER = Path(__file__).with_name("torch_worker.py")
# Idle threads of PyTorch must not spin on the cores that we use.
_PASSIVE_WAIT_ENV = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
Layout = Literal["channels_first", "channels_last"]
LAYOUTS: tuple[Layout, ...] = ("channels_first", "channels_last")


def _threads() -> int:
    return len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class NetworkJob:
    """Forward pass of a network with running averages, or a training step.

    Attributes:
        name: One of `TorchPeer.networks`.
        input: (N, H, W, C).
        classes: Number of logits.
        layout: Memory layout of the images.
        options: Options of the network by name.
        rounds: Number of timed passes, of which the median is taken.
        warm: Number of warm-up passes.
        threads: Number of threads; by default the cores that this process may use.
        kind: Kind of the job.
    """

    name: str
    input: tuple[int, int, int, int]
    classes: int = 1000
    layout: Layout = "channels_first"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rounds: int = 1
    warm: int = 2
    threads: int = dataclasses.field(default_factory=_threads)
    kind: Literal["network", "training"] = "network"


@dataclasses.dataclass(frozen=True)
class ConvJob:
    """Single convolution without bias.

    Attributes:
        input: (N, H, W, C).
        kernel: (height, width, C / groups, O).
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)).
        groups: Number of channel groups.
        layout, rounds, warm, threads, kind: As in `NetworkJob`.
    """

    input: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    groups: int = 1
    layout: Layout = "channels_first"
    rounds: int = 10
    warm: int = 3
    threads: int = dataclasses.field(default_factory=_threads)
    kind: Literal["conv"] = "conv"


class TorchPeer:
    """PyTorch process, for use in a ``with`` statement.

    Attributes:
        version: Version of PyTorch.
        networks: Names of the networks that it can build.

    Args:
        python: Interpreter that can import torch; None for this one.

    Raises:
        UserError: The interpreter does not start or has no torch.
    """

    def __init__(self, python: Path | None = None):
        command = [str(python or sys.executable), str(_WORKER)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.PIPE, env=os.environ | _PASSIVE_WAIT_ENV,
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"--torch-python {python}: {error.strerror}; expected an interpreter with torch"
            ) from error
        try:
            greeting = self._receive()
            self.version: str = greeting["torch"]
            self.networks: frozenset[str] = frozenset(greeting.get("networks", ()))
        except UserError:
            self.close()
            raise UserError(
                f"--torch-python {command[0]} cannot import torch; expected an interpreter that can"
            ) from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                "the PyTorch process has ended without an answer; run the command again"
            )
        return json.loads(line)

    def time(self, job: NetworkJob | ConvJob) -> float:
        """Returns the median seconds of a pass.

        Raises:
            UserError: PyTorch failed; the message is its own.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = self._receive()
        if "error" in answer:
            raise UserError(f"PyTorch: {answer['error']}")
        return answer["seconds"]

    def convolution(self, layer: Layer, batch: int) -> Callable[[], float]:
        """Returns a timer of a layer's dense convolution, in the faster of the two layouts."""
        jobs = [
            ConvJob(
                (batch, layer.size, layer.size, layer.channels),
                (layer.window, layer.window, layer.channels // layer.groups, layer.outputs),
                (layer.stride, layer.stride),
                ((layer.padding, layer.padding), (layer.padding, layer.padding)),
                layer.groups,
                layout,
                rounds=3,
            )
            for layout in LAYOUTS
        ]
        fastest = dataclasses.replace(min(jobs, key=self.time), rounds=1, warm=1)
        return lambda: self.time(fastest)

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
