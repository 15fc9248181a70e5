"""Methods table, rendered from records: measures, deep ensemble equivalents and rank correlations.

Only runs of one preset on the same data are compared, since equivalents need the deep ensemble of
the same network, protocol and augmentation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from adaptive_nets.ensembling import deep_ensemble_equivalent
from experiments.papers.tta.methods.presets import METHODS, PREFIX
from experiments.shared.ensembling.scores import CLL
from experiments.suite import render
from experiments.suite.experiment import PRESETS
from experiments.suite.groups import Group, group_records
from experiments.suite.paper_values import Row
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper

ORDER = tuple(experiment.id.removeprefix(PREFIX) for experiment in METHODS)
NAMES = {
    "single": "single network", "de": "deep ensemble", "sse": "SSE", "csgld": "cSGLD",
    "fge": "FGE", "swag": "SWAG", "vi": "VI", "dropout": "dropout",
    "kfac-laplace": "K-FAC-Laplace",
}  # fmt: skip
AUGMENTED = "tta/"
_NOT_RUN = "Not run: there is no record of a deep ensemble.\n"
_PAPER_NETWORKS = {
    "vgg16bn": "VGG16BN", "preresnet110": "PreResNet110", "preresnet164": "PreResNet164",
    "wrn28x10": "WRN28×10",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Method:
    """Curves of one method over the number of samples, means over seeds.

    Attributes:
        name: last part of the id.
        group: its records.
        arrays: arrays of the records.
    """

    name: str
    group: Group
    arrays: dict[str, np.ndarray]

    def curve(self, measure: str, prefix: str = "") -> np.ndarray:
        """Returns a measure over the numbers of samples."""
        return self.arrays[prefix + measure]

    def last(self, measure: str, prefix: str = "") -> float:
        """Returns a measure at the largest number of samples."""
        return float(self.curve(measure, prefix)[-1])

    @property
    def counts(self) -> list[int]:
        """Numbers of samples."""
        return [int(count) for count in self.arrays["counts"]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods of one preset on the same data.

    Attributes:
        methods: name -> method, in the order of the table.
    """

    methods: dict[str, Method]

    @property
    def runs(self) -> str:
        """Preset, seeds and data of the runs."""
        group = self.methods["de"].group
        seeds = len(group.records)
        images = group.records[0].dataset["train"]
        return (
            f"preset {group.preset}, {seeds} seed{'s' if seeds > 1 else ''}, {images:,} training "
            "images"
        )

    def steps(self, name: str) -> float:
        """Returns the training steps of a method, with those of the network it was given."""
        group = self.methods[name].group
        given = group.records[0].config.get("weights") and name != "single"
        first = self.steps("single") if given and "single" in self.methods else 0.0
        return first + mean_and_deviation(group.values("training_steps"))[0]

    @property
    def status(self) -> str:
        """Says whether data or training are smaller than the paper's."""
        return "*reduced*" if any(m.group.is_reduced for m in self.methods.values()) else "measured"

    def equivalents(self, name: str, prefix: str = "") -> np.ndarray:
        """Returns deep ensemble equivalents of a method over the numbers of samples.

        Predictions with augmentation are compared with the deep ensemble with augmentation. That of
        the deep ensemble itself is its size.
        """
        method = self.methods[name]
        if name == "de":
            return np.array(method.counts, float)
        reference = self.methods["de"].curve("reference/mean", prefix)
        scores = method.curve(CLL, prefix)
        return deep_ensemble_equivalent(scores, reference, forward_only=True)


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Returns the comparisons that records allow, the largest preset first; no smoke runs."""
    found: dict[tuple[str, str], dict[str, Method]] = {}
    for group in group_records([r for r in records if r.experiment.startswith(PREFIX)]):
        first = group.records[0]
        name = first.experiment.removeprefix(PREFIX)
        if group.preset == "smoke" or group.row_changes or name not in ORDER:
            continue
        seeds = [arrays for record in group.records if (arrays := record.arrays())]
        methods = found.setdefault((group.preset, first.dataset["fingerprint"]), {})
        if seeds and name not in methods:
            means = {key: np.mean([s[key] for s in seeds], axis=0) for key in seeds[0]}
            methods[name] = Method(name, group, means)
    complete = [(key, methods) for key, methods in found.items() if "de" in methods]
    complete.sort(key=lambda item: -PRESETS.index(item[0][0]))
    return [Comparison({n: m[n] for n in ORDER if n in m}) for _, m in complete]


def methods_table(records: Sequence[Record]) -> str:
    """Renders error, LL, CLL and equivalents at the largest number of samples."""
    rows = []
    for comparison in comparisons(records):
        for i, (name, method) in enumerate(comparison.methods.items()):
            head = f"{comparison.runs}; {comparison.status}" if i == 0 else ""
            cells = [NAMES[name], f"{method.counts[-1]}", f"{comparison.steps(name):,.0f}"]
            for prefix in ("", AUGMENTED):
                cells += [
                    f"{method.last('error', prefix):.2f}",
                    f"{method.last('ll', prefix):.4f}",
                    f"{method.last(CLL, prefix):.4f}",
                    f"{comparison.equivalents(name, prefix)[-1]:.1f}",
                ]
            rows.append((head, *cells))
    if not rows:
        return _NOT_RUN
    header = (
        "runs", "method", "samples", "steps of all training", "error, %", "LL", "CLL", "DEE",
        "TTA: error, %", "LL", "CLL", "DEE",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def equivalents_table(records: Sequence[Record]) -> str:
    """Renders CLL and deep ensemble equivalents over the number of samples."""
    found = comparisons(records)
    if not found:
        return _NOT_RUN
    parts = []
    for comparison in found:
        counts = comparison.methods["de"].counts
        header = ("method", *(f"CLL / DEE at {count}" for count in counts))
        rows = []
        for prefix, words in (("", ""), (AUGMENTED, ", TTA")):
            for name, method in comparison.methods.items():
                sizes = comparison.equivalents(name, prefix)
                pairs = zip(method.counts, method.curve(CLL, prefix), sizes, strict=True)
                cells = {n: f"{cll:.4f} / {size:.1f}" for n, cll, size in pairs}
                rows.append((NAMES[name] + words, *(cells.get(count, "–") for count in counts)))
        table = render.markdown_table(header, rows, tuple(range(1, len(header))))
        parts.append(
            f"{comparison.runs[0].upper()}{comparison.runs[1:]}; {comparison.status}:\n\n{table}"
        )
    return "\n".join(parts)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation; None for fewer than three values or constant ones."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    found: Any = stats.spearmanr(first, second)
    return float(found.statistic)


def ranks_table(records: Sequence[Record]) -> str:
    """Renders rank correlations of methods by LL, accuracy and CLL; the paper's beside ours."""
    rows = []
    for comparison in comparisons(records):
        for prefix, words in (("", "images as they are"), (AUGMENTED, "TTA")):
            methods = comparison.methods.values()
            lls, clls, accuracies = (
                [sign * method.last(measure, prefix) for method in methods]
                for sign, measure in ((1, "ll"), (1, CLL), (-1, "error"))
            )
            rows.append(
                (
                    f"ours, {comparison.runs}, {comparison.status}", words, f"{len(lls)}",
                    _correlation_text(rank_correlation(lls, clls)),
                    _correlation_text(rank_correlation(accuracies, clls)),
                )
            )  # fmt: skip
    rows += [
        (
            f"the paper, {_PAPER_NETWORKS[network]} on CIFAR-100, 100 samples",
            "images as they are", f"{len(lls)}",
            _correlation_text(rank_correlation(lls, clls)),
            _correlation_text(rank_correlation(accuracies, clls)),
        )
        for network, (lls, clls, accuracies) in paper_scores().items()
    ]  # fmt: skip
    header = ("runs", "images", "methods", "rank correlation of LL and CLL", "of accuracy and CLL")
    return render.markdown_table(header, rows, (2, 3, 4))


def paper_scores() -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Returns network -> LL, CLL and accuracy of the paper's methods at 100 samples."""
    rows, found = _paper_rows(), {}
    for network in _PAPER_NETWORKS:
        triples = []
        for method in ORDER:
            calibration = rows.get(f"cifar100-calibration.{network}-{method}")
            error = rows.get(f"cifar100.{network}-{method}")
            if calibration is None or error is None:
                continue
            values = (
                calibration.number("ll.100"), calibration.number("cll.100"),
                error.number("error.100"),
            )  # fmt: skip
            if None not in values:
                triples.append(values)
        if triples:
            lls, clls, errors = (list(column) for column in zip(*triples, strict=True))
            found[network] = (lls, clls, [-error for error in errors])
    return found


def paper_table(records: Sequence[Record]) -> str:
    """Renders the paper's own methods: ImageNet with and without TTA, and CIFAR-100."""
    del records
    rows = _paper_rows()

    def text(row: str, measure: str, digits: int) -> str:
        value = rows[row].number(measure) if row in rows else None
        return render.number(value, digits)

    imagenet = [
        (
            NAMES[name],
            *(
                text(f"imagenet.resnet50-{name}{suffix}", f"{measure}.{count}", digits)
                for suffix in ("", "-tta")
                for measure, digits in (("error", 2), ("cll", 3))
                for count in (5, 50)
            ),
            text(f"imagenet.resnet50-{name}", "dee.50", 1),
        )
        for name in ORDER
        if f"imagenet.resnet50-{name}" in rows
    ]
    first = render.markdown_table(
        (
            "ResNet50 on ImageNet", "error at 5, %", "at 50", "CLL at 5", "at 50",
            "TTA: error at 5, %", "at 50", "CLL at 5", "at 50", "DEE at 50",
        ),
        imagenet, tuple(range(1, 10)),
    )  # fmt: skip
    cifar = [
        (
            NAMES[name],
            *(
                f"{text(f'cifar100.{network}-{name}', 'error.100', 2)} / "
                f"{text(f'cifar100-dee.{network}-{name}', 'dee.100', 1)}"
                for network in _PAPER_NETWORKS
            ),
        )
        for name in ORDER
    ]
    second = render.markdown_table(
        ("error, % / DEE at 100 samples, CIFAR-100", *_PAPER_NETWORKS.values()), cifar,
        tuple(range(1, 1 + len(_PAPER_NETWORKS))),
    )  # fmt: skip
    return f"{first}\n{second}"


@functools.cache
def _paper_rows() -> dict[str, Row]:
    return load_paper("tta").rows


def _correlation_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
