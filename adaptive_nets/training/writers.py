"""Writers of metrics: JSON lines, and optionally TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from adaptive_nets.runtime.files import naming, write_text_atomically
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.training.history import History, restored_lines


class Writer(Protocol):
    """Writer of named scalars by step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of one step."""
        ...

    def close(self) -> None:
        """Flushes and closes the output."""
        ...


class JsonLinesWriter:
    """Writes one JSON object per line; a resumed run first drops the lines after its checkpoint.

    Args:
        path: file of the metrics.
        resume_step: step that the run resumes from; later lines are dropped.
        snapshot: `snapshot` of the writer at that step, against which the file is checked; None if
            there is none.

    Attributes:
        damage: what the file has lost since the checkpoint; "" if nothing.

    Raises:
        UserError: the file is a folder, or cannot be read.
        OSError: the file cannot be written; the error names it.
    """

    def __init__(self, path: str | Path, *, resume_step: int, snapshot: Any = None):
        path = Path(path)
        self._path = path
        there = read_json_lines(path, entries={"step": int})
        lines, self.damage = restored_lines(
            [line for line in there if line["step"] <= resume_step], snapshot
        )
        self._history = History(lines)
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a line; infinities and NaN become null."""
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        text = json.dumps({"step": step, **finite})
        with naming(self._path):
            self._file.write(text + "\n")
            self._file.flush()
        self._history.add(json.loads(text))

    def snapshot(self) -> dict[str, Any]:
        """Returns JSON values for a checkpoint, which describe the lines so far."""
        return self._history.snapshot()

    def close(self) -> None:
        """Closes the file after syncing it to disk."""
        with naming(self._path), self._file:
            os.fsync(self._file.fileno())


class TensorBoardWriter:
    """Writes TensorBoard event files.

    A resumed run marks the events after its checkpoint as superseded. Events are written in the
    calling thread, so that a full disk raises an error there.

    Args:
        directory: folder of the event files.
        resume_step: step that the run resumes from; 0 for a new run.
    """

    def __init__(self, directory: str | Path, *, resume_step: int):
        # A slow import, which runs without TensorBoard skip.
        directory = Path(directory)
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        # Protobuf creates these classes at import time, unseen by a type checker.
        event_pb2, summary_pb2 = cast("Any", event_pb2), cast("Any", summary_pb2)
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory / "events"))
        if resume_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            event = self._event(wall_time=time.time(), step=resume_step + 1, session_log=start)
            self._writer.write_event(event)
        with naming(directory):
            self._writer.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes an event with one scalar per value."""
        scalars = [self._summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        summary = self._summary(value=scalars)
        with naming(self._directory):
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with naming(self._directory):
            self._writer.close()


class Writers:
    """Combines several writers into one."""

    def __init__(self, *writers: Writer):
        self._writers = writers

    def _of_lines(self) -> JsonLinesWriter | None:
        return next((w for w in self._writers if isinstance(w, JsonLinesWriter)), None)

    @property
    def damage(self) -> str:
        """Description of the lines that the file of lines has lost; see `JsonLinesWriter`."""
        lines = self._of_lines()
        return lines.damage if lines else ""

    def snapshot(self) -> dict[str, Any] | None:
        """Returns the snapshot of the file of lines; None if this process writes none."""
        lines = self._of_lines()
        return lines.snapshot() if lines else None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Passes the values to every writer."""
        for writer in self._writers:
            writer.write(step, values)

    def close(self) -> None:
        """Closes every writer."""
        for writer in self._writers:
            writer.close()
