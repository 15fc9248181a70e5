"""Several processes as one run: how they find each other, agree, and go down together.

JAX's own runtime connects them and inserts the communication. Here is only what a host program must
decide by itself: who writes, what all of them agree on, and what happens when one is lost.
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

# Exit code of a process that lost another one: sysexits' "temporary failure, try again".
LOST_PEER_EXIT_CODE = 75

# What JAX's runtime and its means of communication say when a process is gone.
_PEER_GONE = re.compile(
    r"gloo|nccl|coordination|connection (reset|closed|refused)|unavailable|deadline_exceeded|"
    r"heartbeat|barrier|socket closed|peer",
    re.IGNORECASE,
)


def start(config: DistributedConfig) -> None:
    """Joins the other processes; call it before anything else of JAX.

    Args:
        config: where process 0 is, or which cluster says so. Nothing is done where it names
            neither.

    Raises:
        UserError: the processes cannot find each other, or the cluster does not say who they are.
    """
    if not config.is_requested:
        return
    # A signal is noted by `InterruptGuard` and agreed on in the loop; JAX's own handler would keep
    # it from ending a process that is not in the loop yet.
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
            # Who reaches the end does so within one group of steps of the others.
            shutdown_timeout_seconds=config.heartbeat_seconds,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed.cluster is {config.cluster!r}, which does not say who the processes "
            f"are ({_brief(error)}); give --distributed.coordinator, .num-processes and .process-id"
        ) from error
    except RuntimeError as error:
        where = config.coordinator or f"the cluster ({config.cluster})"
        raise UserError(
            f"the processes of --distributed.coordinator {where} did not all come together within "
            f"--distributed.start-seconds {config.start_seconds}: {_brief(error)}"
        ) from error
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(f"{devices[i]} in process {i}" for i in sorted(devices))
        raise UserError(f"there are {counts}; expected as many devices in each process")


def is_process_0() -> bool:
    """Whether this is the process that writes files and talks: process 0."""
    return jax.process_index() == 0


def max_over_processes(values: Sequence[int]) -> list[int]:
    """The largest of each value over all processes; all of them must ask at the same point."""
    if jax.process_count() == 1:
        return list(values)
    gathered = multihost_utils.process_allgather(np.asarray(values, np.int32))
    return [int(value) for value in gathered.max(axis=0)]


def broadcast_from_process_0(value: int) -> int:
    """The value of process 0, for all."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def allgather_text(text: str) -> list[str]:
    """The text of every process, for all."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(), np.uint8)
    (longest,) = max_over_processes([len(content)])
    padded = np.zeros(longest + 1, np.uint8)
    padded[: len(content)] = content
    gathered = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [row.tobytes().rstrip(b"\0").decode() for row in gathered]


def broadcast_path_from_process_0(path: Path) -> Path:
    """The path of process 0, absolute, for all; they must share the file system."""
    return path if jax.process_count() == 1 else Path(allgather_text(str(path.absolute()))[0])


def check_same_on_all_processes(text: str, what: str) -> None:
    """Raises `UserError` unless all processes have the same text, a fingerprint for instance."""
    if jax.process_count() == 1:
        return
    every = allgather_text(text)
    for process, other in enumerate(every):
        if other != every[0]:
            raise UserError(
                f"processes 0 and {process} have different {what}; expected the same on all hosts"
            )


def fetch(tree: Any) -> Any:
    """Arrays of any layout as NumPy arrays, whole, in every process."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def local_copy(tree: Any) -> Any:
    """Arrays on one device of this process; unchanged where there is only one process.

    What comes after training (export, figures) then need not know of other processes. Leaves that
    are no arrays stay as they are.
    """
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(
        lambda leaf: jnp.asarray(fetch(leaf)) if isinstance(leaf, jax.Array) else leaf, tree
    )


def put(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Host arrays that every process has whole, laid out over the devices of all."""

    def one(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree)


@contextlib.contextmanager
def process_group(config: DistributedConfig, report: Callable[[str], None]) -> Iterator[None]:
    """Joins the other processes; when this one fails, it ends without waiting for them.

    Those that are left notice within the heartbeat's time at the latest and end as well, each with
    an exit code other than 0; a scheduler, or a person, starts all of them again.

    Args:
        config: see `start`.
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
            f"{who} lost another process of the run ({_brief(error)}); see what that one says; "
            "the same command goes on from the last checkpoint"
        )
        _exit_without_cleanup(LOST_PEER_EXIT_CODE)


def _exit_without_cleanup(code: int) -> None:
    # Not sys.exit: on the way out JAX would wait for processes that may never come.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
