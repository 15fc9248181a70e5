"""History of a run's logged values, of which every checkpoint stores a sample.

The values are lines of ``metrics.jsonl``. If the file loses lines, a resumed run says so and takes
the sample of its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

# Largest number of lines of each kind (training, evaluation) in a sample.
SAMPLED = 120


def _kind(line: Line) -> str:
    return ",".join(sorted(line))


class History:
    """Number, digest and sample of the lines written so far, in constant memory."""

    def __init__(self, lines: Sequence[Line] = ()):
        self._count = 0
        self._sums = hashlib.sha256()
        self._sample: dict[str, list[Line]] = {}
        self._last: dict[str, Line] = {}
        self._seen: dict[str, int] = {}
        self._stride: dict[str, int] = {}
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Adds the next line."""
        self._count += 1
        self._sums.update(json.dumps(line, sort_keys=True).encode())
        kind = _kind(line)
        sample = self._sample.setdefault(kind, [])
        seen = self._seen.get(kind, 0)
        stride = self._stride.setdefault(kind, 1)
        if seen % stride == 0:
            sample.append(line)
        if len(sample) > SAMPLED:
            del sample[1::2]
            self._stride[kind] = 2 * stride
        self._seen[kind] = seen + 1
        self._last[kind] = line

    def snapshot(self) -> dict[str, Any]:
        """Returns JSON values for a checkpoint: lines, digest, sample."""
        lines = [line for sample in self._sample.values() for line in sample]
        lines += [line for kind, line in self._last.items() if line is not self._sample[kind][-1]]
        return {
            "lines": self._count,
            "digest": self._sums.hexdigest(),
            "sample": [dict(line) for line in sorted(lines, key=lambda line: line["step"])],
        }


def restored_lines(lines: Sequence[Line], snapshot: Any) -> tuple[list[Line], str]:
    """Returns the lines that a resumed run starts with.

    Args:
        lines: lines of the file up to the step of the checkpoint.
        snapshot: what the checkpoint stored; None for one that stored nothing.

    Returns:
        The lines of the file and those of the sample that it lacks, by step; and what is lost, ""
        if nothing is.
    """
    if snapshot is None or History(lines).snapshot()["digest"] == snapshot["digest"]:
        return list(lines), ""
    there = {(line["step"], _kind(line)) for line in lines}
    taken = [line for line in snapshot["sample"] if (line["step"], _kind(line)) not in there]
    lost = snapshot["lines"] - len(lines)
    if lost <= 0:
        return list(lines), "differs from what the checkpoint recorded, and is kept as it is"
    # Of lines of one step, the kinds have the order in which they were first written.
    kinds = {_kind(line): None for line in snapshot["sample"]}
    order = {kind: rank for rank, kind in enumerate(kinds)}
    return (
        sorted([*lines, *taken], key=lambda line: (line["step"], order.get(_kind(line), 0))),
        f"has lost {lost} of its {snapshot['lines']} lines; {len(taken)} of them are taken from "
        "the checkpoint",
    )
