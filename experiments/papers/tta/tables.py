"""Tables of the paper's experiments, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.tta.methods import answers, table
from experiments.shared.ensembling.scores import CALIBRATED, CLL
from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

PREFIX = "tta.cifar10."
_NOT_RUN = "Not run: there is no record.\n"
# Number of views at which test-time augmentation is compared with the images as they are.
COMPARED = 20


def views_table(records: Sequence[Record]) -> str:
    """Renders every measure over the number of views, without and with calibration."""
    header = (
        "network", "runs", "views", "error, %", "LL", "CLL", "Brier", "calibrated Brier", "ECE, %",
        "calibrated ECE, %", "temperature",
    )  # fmt: skip
    names = (
        "error", "ll", CLL, "brier", CALIBRATED + "brier", "ece", CALIBRATED + "ece",
        CALIBRATED + "temperature",
    )  # fmt: skip
    digits = (2, 4, 4, 4, 4, 2, 2, 3)
    rows = []
    for group in groups_of(records):
        arrays = group.records[0].arrays()
        head = f"`{group.records[0].experiment}`", group.describe()
        plain = [f"{float(arrays[f'plain/{n}']):.{d}f}" for n, d in zip(names, digits, strict=True)]
        rows.append((*head, "none", *plain))
        for i, count in enumerate(arrays["counts"]):
            cells = [f"{float(arrays[n][i]):.{d}f}" for n, d in zip(names, digits, strict=True)]
            rows.append(("", "", f"{int(count)}", *cells))
    if not rows:
        return _NOT_RUN
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def speed_table(records: Sequence[Record]) -> str:
    """Renders the throughput of views beside that of the images themselves."""
    rows = []
    for group in groups_of(records):
        share = group.values("throughput_share")
        if share:
            rows.append(
                (
                    f"`{group.records[0].experiment}`", group.preset,
                    f"{group.values('images_per_second')[0]:,.0f}",
                    f"{group.values('views_per_second')[0]:,.0f}", f"{share[0]:.3f}",
                )
            )  # fmt: skip
    if not rows:
        return _NOT_RUN
    header = ("network", "preset", "images per second", "views per second", "share")
    return render.markdown_table(header, rows, (2, 3, 4))


def answer(records: Sequence[Record]) -> str:
    """Says whether views improve the calibrated log-likelihood, from the largest runs."""
    said = []
    seen: set[str] = set()
    for group in groups_of(records):
        first = group.records[0]
        found = first.metric(f"{CLL}.{COMPARED}")
        plain = first.metric(f"plain_{CLL}")
        if first.experiment in seen or found is None or plain is None:
            continue
        assert found.value is not None
        assert plain.value is not None
        seen.add(first.experiment)
        word = "better than" if found.value > plain.value else "not better than"
        said.append(
            f"- `{first.experiment}`: the calibrated log-likelihood of {COMPARED} views, "
            f"{found.value:.4f}, is {word} that of the images as they are, {plain.value:.4f}.\n"
        )
    return "".join(said) or _NOT_RUN


def groups_of(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of runs on views, without smoke runs."""
    chosen = [r for r in records if r.experiment.startswith(PREFIX)]
    return [g for g in group_records(chosen) if g.preset != "smoke" and not g.row_changes]


PARTS = {
    "views": views_table,
    "speed": speed_table,
    "answer": answer,
    # The name "methods" is the beginning of the ids of experiments.
    "ensembles": table.methods_table,
    "ensembles-dee": table.equivalents_table,
    "ensembles-ranks": table.ranks_table,
    "ensembles-paper": table.paper_table,
    "ensembles-answers": answers.answers,
}
