"""Verified checkpoints: written by Orbax in the background, checked against checksums when read.

Orbax detects a truncated or missing file, but not flipped bits, and offers the newest step even if
it cannot be read. Therefore every step stores a checksum of each array, and `Checkpoints.restore`
returns the newest step that matches its checksums. Damaged steps are reported and moved aside,
never deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_text_atomically
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.training.checkpoint_errors import (
    DamagedCheckpoint,
    brief,
    is_disk_full,
    silence_late_orbax_errors,
)
from adaptive_nets.training.checksum import checksums
from adaptive_nets.training.distributed import is_process_0, max_over_processes, put
from adaptive_nets.training.lost_peer import is_lost_peer

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Restored:
    """Restored checkpoint.

    Attributes:
        step: number of optimiser steps of the state.
        state: training state with the requested shardings.
        position: JSON values stored with it: position in the data, training seconds.
        damaged: one line for every newer step that is damaged or missing.
    """

    step: int
    state: Any
    position: dict[str, Any]
    damaged: tuple[str, ...]


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path, without empty arrays, which Orbax cannot store."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves if leaf.size}


def _shapes(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """Checkpoints of one run in one folder.

    Args:
        directory: folder of the checkpoints, created if absent.
        keep: number of newest steps to keep.
    """

    def __init__(self, directory: str | Path, *, keep: int = 3):
        directory = Path(directory)
        self.directory = directory.absolute()
        self._ledger = self.directory / "saved.jsonl"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        silence_late_orbax_errors()
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise UserError(
                f"checkpoints cannot be written to {directory}: {error.strerror}"
            ) from error

    def steps(self) -> list[int]:
        """Returns the completely written steps, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, position: dict[str, Any]) -> None:
        """Starts to write a checkpoint in the background; does nothing if the step exists.

        Args:
            step: number of optimiser steps of the state.
            state: pytree of arrays; may be donated as soon as this returns.
            position: JSON values to store with it.

        Raises:
            UserError: this or the previous checkpoint cannot be written, for example on a full
                disk.
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
        """Waits until the checkpoint in progress is on disk.

        Raises:
            UserError: it cannot be written.
        """
        with self._clean_up_failed_write(None):
            self._manager.wait_until_finished()
            self._update_ledger()

    def close(self) -> None:
        """Waits for the checkpoint in progress and releases the folder."""
        try:
            self.wait()
        finally:
            # Orbax raises the error of a failed write again, which `wait` has converted.
            with contextlib.suppress(Exception):
                self._manager.close()

    def restore(self, abstract_state: Any) -> Restored | None:
        """Restores the newest step that matches its checksums.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with the requested shardings, which may
                differ from those at the save.

        Returns:
            The restored checkpoint, or None if nothing was ever saved.

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
            # Each process reads its own shards, so only some processes may see the damage.
            if max_over_processes([read is None]) == [0] and read is not None:
                return Restored(step, *read, tuple(damaged))
            problem = problem or "another process could not read its part"
            damaged.append(f"checkpoint of step {step} in {self.directory} is damaged: {problem}")
            self._quarantine(step)
        if damaged:
            raise UserError(
                f"{damaged[0]}; none of the {len(damaged)} checkpoints can be read; "
                f"to start from step 0, pass --fresh or move {self.directory} away"
            )
        return None

    def read_leaves(self, step: int) -> dict[str, Any]:
        """Reads the arrays of a step by path, such as "params/fc1/kernel", on the default device.

        Raises:
            DamagedCheckpoint: the step does not match its checksums.
        """
        body = self._read_description(step)
        return self._read_arrays(step, body, ocp.args.StandardRestore())

    def _read_description(self, step: int) -> dict[str, Any]:
        # A damaged file makes Orbax, TensorStore or JSON raise errors of any type.
        try:
            meta = self._manager.restore(
                step,
                args=ocp.args.Composite(meta=ocp.args.JsonRestore()),  # pyright: ignore
            )["meta"]
            body, digest = meta["body"], meta["digest"]
            intact = _digest(body) == digest
            found = body["step"]
        except Exception as error:
            raise DamagedCheckpoint(f"its description cannot be read ({brief(error)})") from error
        if not intact:
            raise DamagedCheckpoint("its description does not match its digest")
        if found != step:
            raise DamagedCheckpoint(f"it holds step {found}")
        return body

    def _read_arrays(self, step: int, body: dict[str, Any], restore: Any) -> dict[str, Any]:
        try:
            leaves = self._manager.restore(
                step,
                args=ocp.args.Composite(state=restore),  # pyright: ignore
            )["state"]
        except Exception as error:
            raise DamagedCheckpoint(f"its arrays cannot be read ({brief(error)})") from error
        for name, found in checksums(leaves).items():
            if found != body["checksums"][name]:
                raise DamagedCheckpoint(
                    f"the checksum of {name} is {found}; expected {body['checksums'][name]}"
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
                    f"{saved.get(name, 'absent')} there; expected {wanted.get(name, 'absent')}; "
                    "choose another folder with --out"
                )

    @property
    def _damaged(self) -> Path:
        return self.directory.parent / "damaged-checkpoints"

    def _quarantine(self, step: int) -> None:
        """Moves a damaged step aside; the ledger keeps it until a newer one is saved."""
        moved = {}
        if is_process_0():
            self._damaged.mkdir(exist_ok=True)
            names = itertools.chain([str(step)], (f"{step}.{n}" for n in itertools.count(1)))
            name = next(name for name in names if not (self._damaged / name).exists())
            shutil.move(self.directory / str(step), self._damaged / name)
            moved = {step: name}
        max_over_processes([0])  # A barrier: no process reads the folder before the move.
        self._manager.reload()
        self._update_ledger(moved)

    def _missing_steps(self) -> list[str]:
        """Returns a line for each step of the ledger that is newer than all steps on disk.

        A step that was found damaged earlier counts only if no step is on disk.
        """
        present = self.steps()
        newest = present[-1] if present else -1
        lines = []
        for step, name in sorted(self._read_ledger().items(), reverse=True):
            if step > newest and not (name and present):
                place = f"damaged and was moved to {self._damaged / name}" if name else "missing"
                lines.append(f"checkpoint of step {step} in {self.directory} is {place}")
        return lines

    def _read_ledger(self) -> dict[int, str]:
        """Returns the recorded steps, each with its name among the damaged ones or "".

        A damaged step that somebody has moved away is forgotten.
        """
        lines = read_json_lines(self._ledger, entries={"step": int})
        found = {line["step"]: str(line.get("damaged", "")) for line in lines}
        return {s: name for s, name in found.items() if not name or (self._damaged / name).exists()}

    def _update_ledger(self, moved: Mapping[int, str] | None = None) -> None:
        """Records the complete steps, and keeps newer ones that are damaged or missing."""
        if not is_process_0():
            return
        steps, before = self.steps(), self._read_ledger()
        newest = steps[-1] if steps else -1
        known = before | dict(moved or {})
        kept = dict.fromkeys(steps, "") | {s: name for s, name in known.items() if s > newest}
        if kept != before:
            lines = [{"step": s} | ({"damaged": name} if name else {}) for s, name in kept.items()]
            write_text_atomically(self._ledger, "".join(json.dumps(line) + "\n" for line in lines))

    @contextlib.contextmanager
    def _clean_up_failed_write(self, step: int | None) -> Iterator[None]:
        """Converts a failed write to a `UserError`, after removing incomplete files."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if jax.process_count() > 1 and is_lost_peer(error) and not is_disk_full(error):
                raise
            if jax.process_count() == 1:
                for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                with contextlib.suppress(Exception):
                    self._manager.reload()
            kept = self.steps()
            last = f"step {kept[-1]} is kept" if kept else "no earlier step was saved"
            which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            full = is_disk_full(error)
            why = "no space left on the disk" if full else brief(error)
            raise UserError(
                f"{which} could not be written to {self.directory}: {why}; {last}; "
                f"{'make room and ' if full else ''}run the same command to resume"
            ) from error


def read_variables(directory: str | Path, step: int) -> dict[str, Any]:
    """Reads the variables for evaluation from a checkpoint of a run.

    Args:
        directory: folder ``checkpoints`` of the run.
        step: step of the checkpoint.

    Returns:
        {"params": ..., other collections}, NumPy arrays; the moving average of the parameters if
        there is one.

    Raises:
        UserError: the checkpoint is damaged.
    """
    directory = Path(directory)
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
