"""Multi-process runs: start-up, host-level collectives, and exit when a process is lost.

JAX's runtime connects the processes and inserts the communication between devices. This module adds
the decisions of the host program: which process writes files, which values all processes agree on,
and how they exit after a failure.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DistributedConfig

# Exit code of a process that lost another one: EX_TEMPFAIL of sysexits, "try again".
LOST_PEER_EXIT_CODE = 75

# Words in the errors that JAX's runtime, Gloo and NCCL raise when another process is lost.
_PEER_GONE = re.compile(
    r"gloo|nccl|coordination|connection (reset|closed|refused)|unavailable|deadline_exceeded|"
    r"heartbeat|barrier|socket closed|peer",
    re.IGNORECASE,
)


def start(config: DistributedConfig) -> None:
    """Joins the other processes; call it before any other use of JAX.

    Args:
        config: address of process 0, or the cluster that provides it. If neither is given, this
            does nothing.

    Raises:
        UserError: the processes do not connect in time, the cluster does not identify them, or
            they have different numbers of devices.
    """
    if not config.is_requested:
        return
    # `InterruptGuard` records signals, and the loop agrees on them across processes. JAX's handler
    # would swallow a signal that arrives before the loop.
    jax.config.update("jax_enable_preemption_service", False)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    method = {"off": "deactivate", "auto": None}.get(config.cluster, config.cluster)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            cluster_detection_method=method,
            initialization_timeout=config.start_seconds,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
            # Processes finish within one group of steps of each other.
            shutdown_timeout_seconds=config.heartbeat_seconds,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed.cluster is {config.cluster!r}, which does not identify the processes "
            f"({_brief(error)}); give --distributed.coordinator, --distributed.num-processes and "
            "--distributed.process-id"
        ) from error
    except RuntimeError as error:
        where = config.coordinator or f"the cluster ({config.cluster})"
        raise UserError(
            f"the processes of --distributed.coordinator {where} did not all connect within "
            f"--distributed.start-seconds {config.start_seconds}: {_brief(error)}"
        ) from error
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(f"{devices[i]} in process {i}" for i in sorted(devices))
        raise UserError(f"device counts are {counts}; expected the same number in each process")


def is_process_0() -> bool:
    """Returns whether this is process 0, which alone writes files and prints."""
    return jax.process_index() == 0


def max_over_processes(values: Sequence[int]) -> list[int]:
    """Returns the element-wise maximum over all processes; a collective, called by all of them."""
    if jax.process_count() == 1:
        return list(values)
    gathered = multihost_utils.process_allgather(np.asarray(values, np.int32))
    return [int(value) for value in gathered.max(axis=0)]


def broadcast_from_process_0(value: int) -> int:
    """Returns the value of process 0 in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def allgather_text(text: str) -> list[str]:
    """Returns the texts of all processes, in every process."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(), np.uint8)
    (longest,) = max_over_processes([len(content)])
    padded = np.zeros(longest + 1, np.uint8)
    padded[: len(content)] = content
    gathered = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [row.tobytes().rstrip(b"\0").decode() for row in gathered]


def broadcast_path_from_process_0(path: Path) -> Path:
    """Returns the absolute path of process 0 in every process; they share the file system."""
    return path if jax.process_count() == 1 else Path(allgather_text(str(path.absolute()))[0])


def check_same_on_all_processes(text: str, what: str) -> None:
    """Raises a `UserError` unless all processes have the same text, such as a fingerprint.

    Args:
        text: text of this process.
        what: name of what the text identifies, for the message.
    """
    if jax.process_count() == 1:
        return
    every = allgather_text(text)
    for process, other in enumerate(every):
        if other != every[0]:
            raise UserError(
                f"processes 0 and {process} have different {what}; expected the same on all hosts"
            )


def fetch(tree: Any) -> Any:
    """Gathers arrays of any sharding as NumPy arrays in every process."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def local_copy(tree: Any) -> Any:
    """Gathers arrays onto one device of this process; a single process gets them unchanged.

    Export and figures then need no collectives. Leaves that are not JAX arrays stay as they are.
    """
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(
        lambda leaf: jnp.asarray(fetch(leaf)) if isinstance(leaf, jax.Array) else leaf, tree
    )


def put(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Places host arrays, complete in every process, on the devices of all processes."""

    def one(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree)


@contextlib.contextmanager
def process_group(config: DistributedConfig, report: Callable[[str], None]) -> Iterator[None]:
    """Joins the other processes; if this one fails, exits without waiting for them.

    The other processes notice within the heartbeat timeout and exit too, each with a non-zero code.
    A scheduler or the user then restarts all of them.

    Args:
        config: coordinator or cluster, see `start`.
        report: prints one line of an error.
    """
    start(config)
    if jax.process_count() == 1:
        yield
        return
    who = f"process {jax.process_index()} of {jax.process_count()}"
    try:
        yield
    except UserError as error:
        report(f"{error} ({who})")
        _exit_without_cleanup(2)
    except Exception as error:
        if not _PEER_GONE.search(f"{type(error).__name__} {error}"):
            traceback.print_exc()
            _exit_without_cleanup(1)
        report(
            f"{who} lost another process of the run ({_brief(error)}); see the output of that one; "
            "the same command resumes from the last checkpoint"
        )
        _exit_without_cleanup(LOST_PEER_EXIT_CODE)


def _exit_without_cleanup(code: int) -> None:
    # Not sys.exit: JAX's exit handlers would wait for processes that are lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
