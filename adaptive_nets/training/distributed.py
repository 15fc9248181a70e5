"""Multi-process runs: start-up, host-level collectives, and exit when a process is lost.

JAX's runtime connects the processes and inserts the communication between devices. This module adds
the decisions of the host program: which process writes files, which values all processes agree on,
and how they exit after a failure.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.native_abort import translated_aborts
from adaptive_nets.runtime.platforms import absent_platform
from adaptive_nets.training.config import DistributedConfig
from adaptive_nets.training.lost_peer import (
    LostPeerError,
    brief,
    causes,
    describe,
    is_lost_peer,
    parse_fatal,
)
from adaptive_nets.training.roll_call import PeerLink, call_roll

# Exit code of a process that lost another one: EX_TEMPFAIL of sysexits, "try again".
LOST_PEER_EXIT_CODE = 75

# After an error of a collective, the time for the operating systems to close the connections of the
# process that caused it.
_LINK_SECONDS = 3.0


def start(config: DistributedConfig) -> PeerLink | None:
    """Joins the other processes; call it before any other use of JAX.

    Args:
        config: address of process 0, or the cluster that provides it. If neither is given, this
            does nothing.

    Returns:
        The link to the other processes if the configuration names all of them, else None.

    Raises:
        LostPeerError: the processes do not connect in time, or the address cannot be used.
        UserError: the cluster does not identify the processes, two of them have the same index, or
            they have different numbers of devices.
    """
    if not config.is_requested:
        return None
    # `InterruptGuard` records signals, and the loop agrees on them across processes. JAX's handler
    # would swallow a signal that arrives before the loop.
    jax.config.update("jax_enable_preemption_service", False)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    method = {"off": "deactivate", "auto": None}.get(config.cluster, config.cluster)
    link = None
    if config.coordinator and config.num_processes and config.process_id is not None:
        link = call_roll(
            config.coordinator,
            process=config.process_id,
            count=config.num_processes,
            seconds=config.start_seconds,
        )
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
            f"({brief(error)}); give --distributed.coordinator, --distributed.num-processes and "
            "--distributed.process-id"
        ) from error
    except RuntimeError as error:
        where = config.coordinator or f"the cluster ({config.cluster})"
        raise LostPeerError(
            f"the processes of --distributed.coordinator {where} did not all connect within "
            f"--distributed.start-seconds {config.start_seconds}: {brief(error)}"
        ) from error
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(f"{devices[i]} in process {i}" for i in sorted(devices))
        raise UserError(f"device counts are {counts}; expected the same number in each process")
    return link


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
def process_group(
    config: DistributedConfig,
    report: Callable[[str], None],
    *,
    folder: Path | None = None,
    command: str | None = None,
) -> Iterator[None]:
    """Joins the other processes; if this one fails, exits without waiting for them.

    The other processes notice by a failed collective or within the heartbeat timeout. Each prints
    one line and exits with `LOST_PEER_EXIT_CODE`. A scheduler or the user restarts all of them.

    Args:
        config: coordinator or cluster, see `start`.
        report: prints one line of an error.
        folder: folder of the run, for the step that is saved; that of process 0 counts.
        command: command of this process, for the line about a lost process.
    """
    if not config.is_requested:
        yield
        return
    group = _ProcessGroup(config, report, folder, command)
    with translated_aborts(group.explain_abort):
        try:
            group.join()
            yield
            group.leave()
        except UserError as error:
            group.exit(f"{error} ({group.name})", 2)
        except KeyboardInterrupt:
            group.exit(f"stopped by ^C ({group.name})", 128 + signal.SIGINT)
        except SystemExit:
            group.leave()
            raise
        except Exception as error:
            mistake = absent_platform(error)
            if mistake is not None:
                group.exit(f"{mistake} ({group.name})", 2)
            if not is_lost_peer(error):
                traceback.print_exc()
                group.exit(None, 1)
            group.exit_after(error)


class _ProcessGroup:
    """Membership of this process in a run of several, and its end."""

    def __init__(
        self,
        config: DistributedConfig,
        report: Callable[[str], None],
        folder: Path | None,
        command: str | None,
    ):
        self._config, self._report = config, report
        self._folder, self._command = folder, command
        self._link: PeerLink | None = None
        self._process, self._count = config.process_id, config.num_processes
        self._ending = threading.Lock()  # Taken once, and never released.

    @property
    def name(self) -> str:
        """Index of this process and number of all."""
        return f"process {self._process} of {self._count}"

    def join(self) -> None:
        """Joins the other processes."""
        self._link = start(self._config)
        self._process, self._count = jax.process_index(), jax.process_count()
        if self._folder is not None:
            self._folder = broadcast_path_from_process_0(self._folder)

    def leave(self) -> None:
        """Waits for the other processes to finish, and disconnects."""
        jax.distributed.shutdown()
        if self._link is not None:
            self._link.close()

    def exit_after(self, error: Exception) -> NoReturn:
        """Exits after an error that a lost process caused."""
        own = next((e for e in causes(error) if isinstance(e, LostPeerError)), None)
        if own is not None:
            self._exit_for(own)
        if self._link is None:
            # JAX's client ends this process as soon as it knows which one is lost.
            time.sleep(self._config.heartbeat_seconds + _LINK_SECONDS)
        self._exit_for(LostPeerError(brief(error)))

    def explain_abort(self, text: str) -> None:
        """Exits if a fatal message of native code is about a lost process."""
        error = parse_fatal(text)
        if error is not None:
            self._exit_for(error)

    def _exit_for(self, error: LostPeerError) -> NoReturn:
        if self._link is not None:
            # A process that ends because another one is lost is not the one to be named.
            first = self._link.first_lost(0 if error.processes not in ((), (0,)) else _LINK_SECONDS)
            if first is not None:
                error = LostPeerError(first.why, (first.process,))
            elif error.processes:
                self._link.report_lost(error.processes[0], error.why)
        line = describe(
            error,
            process=self._process,
            count=self._count,
            hosts=self._link.hosts if self._link else (),
            folder=self._folder,
            command=self._command,
        )
        self.exit(line, LOST_PEER_EXIT_CODE)

    def exit(self, line: str | None, code: int) -> NoReturn:
        """Prints a line and exits, once; not by sys.exit, whose handlers wait for the others."""
        self._ending.acquire()
        if self._link is not None:
            self._link.leave(f"exited with code {code}, see its output")
        if sys.stderr.isatty():
            # A progress bar may have left its line unfinished and the cursor hidden.
            print("\r\x1b[2K\x1b[?25h", end="", file=sys.stderr)
        if line is not None:
            self._report(line)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
