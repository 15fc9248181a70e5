"""Comparisons of the papers, their records of equal size, and which orderings these show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from experiments.shared.paired import Difference, paired_difference, values_by_seed
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record
from experiments.suite.registry import load_paper

PAPER = "zoo"
Answer = Literal["shows", "is reversed", "is not decided"]
# A difference counts if it exceeds so many of its standard errors.
_ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        label: name in tables and figures.
        experiment: id without the name of the paper.
        row: row with the paper's number, if it is not the experiment's.
    """

    label: str
    experiment: str
    row: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Sides that a paper compares, and the orderings that it claims.

    Attributes:
        name: short name.
        title: heading in one line.
        sides: the sides; the first is the baseline.
        claims: (better, worse), indices of sides: the better one has the lower measure.
        measure: measure that is compared.
        note: remark on the paper's numbers.
    """

    name: str
    title: str
    sides: tuple[Side, ...]
    claims: tuple[tuple[int, int], ...] = ((1, 0),)
    measure: str = "error"
    note: str = ""

    def published(self, side: int) -> float | None:
        """Returns the paper's number of a side; None if it has none."""
        chosen = self.sides[side]
        row = load_paper(PAPER).rows[chosen.row or chosen.experiment]
        return row.number(self.measure)

    @property
    def unit(self) -> str:
        """Unit of a difference."""
        return "points" if self.measure == "error" else "bits"

    @property
    def digits(self) -> int:
        """Number of decimals."""
        return load_paper(PAPER).measures[self.measure].digits


def answer_of(difference: Difference) -> Answer:
    """Says whether a claim that a difference is negative shows."""
    if difference.error is None or abs(difference.mean) <= _ERRORS * difference.error:
        return "is not decided"
    return "shows" if difference.mean < 0 else "is reversed"


@dataclasses.dataclass(frozen=True)
class Block:
    """Records of a comparison that have the same size.

    Attributes:
        comparison: the comparison.
        groups: group of records of each side; None for a side without records of this size.
    """

    comparison: Comparison
    groups: tuple[Group | None, ...]

    @property
    def preset(self) -> str:
        """Preset of the records."""
        return next(group.preset for group in self.groups if group is not None)

    def difference(self, first: int, second: int) -> Difference | None:
        """Returns the paired difference of two sides; None if they share no seed."""
        one, other = (self._values(side) for side in (first, second))
        return paired_difference(one, other)

    def _values(self, side: int) -> dict[int, float]:
        group = self.groups[side]
        return values_by_seed(group, self.comparison.measure) if group is not None else {}


def blocks_of(comparison: Comparison, records: Sequence[Record]) -> list[Block]:
    """Groups the records of a comparison by size, the largest first.

    Sides are compared if they have the same preset, the same data and, below full size, the same
    number of steps. Smoke runs and runs of other rows are left out.

    Args:
        comparison: the comparison.
        records: records of any experiments.
    """
    ids = [f"{PAPER}.{side.experiment}" for side in comparison.sides]
    sizes: dict[tuple, list[Group | None]] = {}
    for group in group_records([r for r in records if r.experiment in ids]):
        if group.preset == "smoke" or group.row_changes:
            continue
        places = sizes.setdefault(_size(group), [None] * len(ids))
        place = ids.index(group.records[0].experiment)
        places[place] = places[place] or group
    order = {"paper": 0, "day": 1, "quick": 2}
    made = [Block(comparison, tuple(groups)) for groups in sizes.values()]
    return sorted(made, key=lambda block: order[block.preset])


def _size(group: Group) -> tuple:
    first = group.records[0]
    # At full size every side has the schedule of its own paper.
    steps = 0 if group.preset == "paper" and not first.changed else first.steps
    return group.preset, first.dataset["fingerprint"], steps


_LSTM = ("lstm", "layernorm-lstm", "hyperlstm", "layernorm-hyperlstm")
_LABELS = ("LSTM", "layer-norm LSTM", "HyperLSTM", "layer-norm HyperLSTM")
_LSTM_CLAIMS = ((1, 0), (2, 0), (3, 1), (3, 2))


def _depth(data: str) -> tuple[Side, ...]:
    name = "stochastic-depth"
    return (
        Side("constant depth", f"{name}.constant-{data}"),
        Side("stochastic depth", f"{name}.stochastic-{data}"),
    )


def _fractal(data: str) -> tuple[Side, ...]:
    return (
        Side("without", f"fractalnet.plain-{data}"),
        Side("dropout and drop-path", f"fractalnet.drop-path-{data}"),
    )


COMPARISONS = (
    Comparison(
        "hypernet",
        "Static hypernetwork on MNIST",
        (
            Side("ordinary kernels", "mnist.hypernet-baseline"),
            Side("generated kernel", "mnist.hypernet"),
        ),
        claims=((0, 1),),
    ),
    Comparison(
        "lenet",
        "LeNet-5 on MNIST",
        (
            Side("images as they are", "mnist.lenet5"),
            Side("distorted images", "mnist.lenet5-distorted"),
        ),
    ),
    Comparison(
        "nin",
        "Head of NIN, CIFAR-10",
        (
            Side("dense head", "nin.dense-c10"),
            Side("dense head, dropout", "nin.dense-dropout-c10"),
            Side("global average pooling", "nin.average-c10"),
        ),
        claims=((1, 0), (2, 0), (2, 1)),
    ),
    Comparison("stochastic-depth", "Stochastic depth, CIFAR-10 augmented", _depth("c10-plus")),
    Comparison("stochastic-depth-plain", "Stochastic depth, CIFAR-10", _depth("c10")),
    Comparison("fractalnet", "Dropout and drop-path of FractalNet, CIFAR-10", _fractal("c10")),
    Comparison(
        "fractalnet-augmented",
        "Dropout and drop-path of FractalNet, CIFAR-10 augmented",
        _fractal("c10-plus"),
    ),
    Comparison(
        "densenet",
        "DenseNet beside a residual network, CIFAR-10 augmented",
        (
            Side("ResNet, constant depth", "stochastic-depth.constant-c10-plus"),
            Side("DenseNet, k = 12", "densenet.40-k12-c10-plus"),
        ),
    ),
    Comparison(
        "se",
        "Squeeze and excitation, CIFAR-10 augmented",
        (
            Side("plain", "se.resnet110-c10-plus"),
            Side("squeeze and excitation", "se.se-resnet110-c10-plus"),
        ),
    ),
    Comparison(
        "label-smoothing",
        "Label smoothing, ResNet-20 on CIFAR-10 augmented",
        (
            Side("hard labels", "resnet.20-c10-plus"),
            Side("label smoothing 0.1", "label-smoothing.resnet20-c10-plus"),
        ),
        note="The paper smooths the labels of Inception-v2 on ImageNet: 23.1 % becomes 22.8 %.",
    ),
    Comparison(
        "text",
        "Character models, documentation of Python",
        tuple(
            Side(label, f"text.{kind}", f"characters.ptb-{kind}-1000")
            for kind, label in zip(_LSTM, _LABELS, strict=True)
        ),
        claims=_LSTM_CLAIMS,
        measure="bits",
        note="The paper's numbers are of the Penn Treebank and 1000 units.",
    ),
    Comparison(
        "ptb",
        "Character models, Penn Treebank",
        tuple(
            Side(label, f"characters.ptb-{kind}-1000")
            for kind, label in zip(_LSTM, _LABELS, strict=True)
        ),
        claims=_LSTM_CLAIMS,
        measure="bits",
    ),
    Comparison(
        "enwik8",
        "Character models, enwik8",
        (
            Side("LSTM", "characters.enwik8-lstm-1800"),
            Side("HyperLSTM", "characters.enwik8-hyperlstm-1800"),
            Side("layer-norm HyperLSTM", "characters.enwik8-layernorm-hyperlstm-1800"),
        ),
        claims=((1, 0), (2, 1)),
        measure="bits",
    ),
)
