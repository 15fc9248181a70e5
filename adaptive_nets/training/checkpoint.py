"""Checkpoints that can be trusted: written by Orbax in the background, verified when read.

Orbax notices a truncated or missing file, but not flipped bits, and offers the newest step even
when it cannot be read. So every step carries a checksum per array beside it, and reading walks back
from the newest step to the first whose content is what was saved. Steps that are not are named and
moved aside, never deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import read_json_lines, write_text_atomically
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.training.checksum import checksums
from adaptive_nets.training.distributed import is_process_0, max_over_processes, put

_FORMAT = 1


class DamagedCheckpoint(Exception):
    """A step that is there but not what was saved; the message says what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What was found.

    Attributes:
        step: optimiser steps of the state.
        state: the training state, laid out as asked for.
        position: what was stored with it: place in the data, seconds trained.
        damaged: one line for every newer step that could not be used.
    """

    step: int
    state: Any
    position: dict[str, Any]
    damaged: tuple[str, ...]


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path, but for arrays without elements: Orbax refuses those, and nothing is lost."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves if leaf.size}


def _shapes(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _is_disk_full(error: BaseException) -> bool:
    """True where the error, or one behind it, is the operating system's 'no space left'."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left" in str(seen) or "RESOURCE_EXHAUSTED" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _silence_late_orbax_errors() -> None:
    """Keeps tracebacks of files off the screen that end after another one has failed.

    The first failure ends Orbax's event loop while other files are still being read or written;
    each of those then finds the loop closed, in a thread where nobody can catch it, or is given up
    where it stands. What failed is raised and reported all the same.
    """
    before = sys.unraisablehook
    if getattr(before, "passes_over_late_answers", False):
        return

    def hook(unraisable: Any) -> None:
        error, given_up = unraisable.exc_value, unraisable.object
        late = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        of_orbax = inspect.iscoroutine(given_up) and "orbax" in given_up.cr_code.co_filename
        if not (late or of_orbax):
            before(unraisable)

    hook.passes_over_late_answers = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        directory: the folder; made when the first checkpoint is saved.
        keep: how many of the newest steps to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 3):
        self.directory = directory.absolute()
        self._ledger = self.directory / "saved.jsonl"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        _silence_late_orbax_errors()
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise UserError(f"cannot keep checkpoints in {directory}: {error.strerror}") from error

    def steps(self) -> list[int]:
        """Steps that were written to the end, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, position: dict[str, Any]) -> None:
        """Begins to write a checkpoint and returns; does nothing if the step is there already.

        Args:
            step: optimiser steps of the state.
            state: a pytree of arrays; the caller may donate it right afterwards.
            position: JSON values to store beside it.

        Raises:
            UserError: this or the previous checkpoint could not be written, on a full disk for
                instance.
        """
        self.wait()
        if step in self.steps():
            return
        leaves = _named_leaves(state)
        body = {
            "format": _FORMAT,
            "step": step,
            "position": position,
            "leaves": _shapes(leaves),
            "checksums": checksums(leaves),
        }
        with self._clean_up_failed_write(step):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(leaves),  # pyright: ignore[reportCallIssue]
                    meta=ocp.args.JsonSave(  # pyright: ignore[reportCallIssue]
                        {"body": body, "digest": _digest(body)}
                    ),
                ),
            )

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
            UserError: it could not be written.
        """
        with self._clean_up_failed_write(None):
            self._manager.wait_until_finished()
            self._update_ledger()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, abstract_state: Any) -> Restored | None:
        """Reads the newest step whose content is what was saved.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with the shardings wanted, which need not
                be those it was saved with.

        Returns:
            What was found, or None if nothing was ever saved.

        Raises:
            UserError: the checkpoints are of another network or optimiser, or all of them are
                damaged.
        """
        damaged = self._missing_steps()
        for step in reversed(self.steps()):
            read, problem = None, ""
            try:
                read = self._read(step, abstract_state)
            except DamagedCheckpoint as error:
                problem = str(error)
            # A file that only one of several processes needs may be the damaged one.
            if max_over_processes([read is None]) == [0] and read is not None:
                return Restored(step, *read, tuple(damaged))
            problem = problem or "another process could not read its part"
            damaged.append(f"checkpoint of step {step} in {self.directory} is damaged: {problem}")
            self._quarantine(step)
        if damaged:
            raise UserError(
                f"{damaged[0]}; none of the {len(damaged)} checkpoints can be read; "
                f"move {self.directory} away to start again"
            )
        return None

    def read_leaves(self, step: int) -> dict[str, Any]:
        """Reads the arrays of a step by path, such as "params/fc1/kernel", on the default device.

        Raises:
            DamagedCheckpoint: The step is not what was saved.
        """
        body = self._read_description(step)
        return self._read_arrays(step, body, ocp.args.StandardRestore())

    def _read_description(self, step: int) -> dict[str, Any]:
        # Whatever a damaged file makes Orbax, TensorStore or JSON raise, it means the same here.
        try:
            meta = self._manager.restore(
                step,
                args=ocp.args.Composite(meta=ocp.args.JsonRestore()),  # pyright: ignore
            )["meta"]
            body, digest = meta["body"], meta["digest"]
            intact = _digest(body) == digest
        except Exception as error:
            raise DamagedCheckpoint(f"its description cannot be read ({_brief(error)})") from error
        if not intact:
            raise DamagedCheckpoint("its description was changed after it was written")
        return body

    def _read_arrays(self, step: int, body: dict[str, Any], restore: Any) -> dict[str, Any]:
        try:
            leaves = self._manager.restore(
                step,
                args=ocp.args.Composite(state=restore),  # pyright: ignore
            )["state"]
        except Exception as error:
            raise DamagedCheckpoint(f"its arrays cannot be read ({_brief(error)})") from error
        for name, found in checksums(leaves).items():
            if found != body["checksums"][name]:
                raise DamagedCheckpoint(
                    f"the checksum of {name} is {found}, was {body['checksums'][name]}"
                )
        return leaves

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        body = self._read_description(step)
        wanted = _named_leaves(abstract_state)
        self._check_same_network(body["leaves"], _shapes(wanted))
        leaves = self._read_arrays(step, body, ocp.args.StandardRestore(wanted))

        def place(path, leaf):
            if leaf.size:
                return leaves[path_name(path)]
            empty = np.zeros(leaf.shape, leaf.dtype)
            return jnp.asarray(empty) if leaf.sharding is None else put(empty, leaf.sharding)

        return jax.tree_util.tree_map_with_path(place, abstract_state), body["position"]

    def _check_same_network(self, saved: dict[str, str], wanted: dict[str, str]) -> None:
        for name in sorted({*saved, *wanted}):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"the checkpoints in {self.directory} are of another configuration: {name} is "
                    f"{saved.get(name, 'absent')} there, {wanted.get(name, 'absent')} here"
                )

    def _quarantine(self, step: int) -> None:
        if is_process_0():
            target = self.directory.parent / "damaged-checkpoints"
            target.mkdir(exist_ok=True)
            for name in (str(step), f"{step}.{len(list(target.iterdir()))}"):
                if not (target / name).exists():
                    shutil.move(self.directory / str(step), target / name)
                    break
        max_over_processes([0])  # Nobody looks before it is moved.
        self._manager.reload()
        self._update_ledger()

    def _missing_steps(self) -> list[str]:
        """Steps newer than any that is here, although they had been written to the end."""
        here = self.steps()
        newest = here[-1] if here else -1
        remembered = [line["step"] for line in read_json_lines(self._ledger)]
        return [
            f"checkpoint of step {step} in {self.directory} is gone"
            for step in sorted(remembered, reverse=True)
            if step > newest
        ]

    def _update_ledger(self) -> None:
        """Notes which steps are complete, so that one that disappears is missed."""
        steps = self.steps()
        if is_process_0() and steps != [line["step"] for line in read_json_lines(self._ledger)]:
            lines = [json.dumps({"step": step}) + "\n" for step in steps]
            write_text_atomically(self._ledger, "".join(lines))

    @contextlib.contextmanager
    def _clean_up_failed_write(self, step: int | None) -> Iterator[None]:
        """Turns a failed write into one line, after removing what was half-written."""
        try:
            yield
        except Exception as error:
            if jax.process_count() == 1:
                for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                self._manager.reload()
            kept = self.steps()
            last = f"step {kept[-1]} is kept" if kept else "no earlier step was saved"
            which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            why = "no space left on the disk" if _is_disk_full(error) else _brief(error)
            raise UserError(
                f"{which} could not be written to {self.directory}: {why}; {last}; "
                "make room and run the same command to go on"
            ) from error


def read_variables(directory: Path, step: int) -> dict[str, Any]:
    """Reads the variables that a checkpoint of a run would be evaluated with.

    Args:
        directory: The folder ``checkpoints`` of the run.
        step: One of its steps.

    Returns:
        {"params": ..., other collections}, NumPy arrays; the moving average where there is one.

    Raises:
        UserError: The checkpoint is damaged.
    """
    checkpoints = Checkpoints(directory)
    try:
        leaves = checkpoints.read_leaves(step)
    except DamagedCheckpoint as error:
        raise UserError(f"checkpoint of step {step} in {directory} is damaged: {error}") from error
    finally:
        checkpoints.close()
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = np.asarray(leaf)
    return {"params": tree.get("ema") or tree["params"], **tree.get("model_state", {})}


def _brief(error: BaseException) -> str:
    """First line of an error, short enough for a message."""
    text = str(error).strip().splitlines()
    line = text[0] if text else ""
    return f"{type(error).__name__}: {line[:120]}" if line else type(error).__name__
