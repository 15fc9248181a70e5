"""The parts of README.md and BUILD_NOTES.md, and the picture, that are rendered from records.

A part stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Rendering replaces what is
between; a test fails when it is stale, so no number in these documents is typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.files import write_text_atomically
from adaptive_nets.runtime.progress import format_seconds
from experiments.bench import tables
from experiments.bench.kernel_figure import draw
from experiments.papers.perforated_cnn.tables import speed_table
from experiments.papers.sact import tables as depth
from experiments.suite import render
from experiments.suite.comparison import compare, group_records
from experiments.suite.records import PUBLISHED, Record, collect, mean_and_deviation
from experiments.suite.registry import select

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "experiments/papers/perforated_cnn/README.md",
    "experiments/papers/sact/README.md",
    "experiments/papers/pact/README.md",
    "README.md",
    "BUILD_NOTES.md",
    "kernels/README.md",
)
PICTURE = PUBLISHED / "figures" / "sparsity-over-training.svg"
KERNEL_PICTURE = PUBLISHED / "figures" / "kernel-speedups.svg"
_PART = re.compile(
    r"(<!-- begin (?P<name>[\w.-]+) -->\n)(?P<body>.*?)(<!-- end (?P=name) -->)", re.S
)


def comparison_table(pattern: str) -> str:
    """The paper's values beside ours, cited rows left out."""
    records = collect([PUBLISHED])
    parts = []
    for cells in compare(select(pattern), records).values():
        parts.append(render.markdown_cells([c for c in cells if c.verdict != "cited"]))
    return "\n".join(parts)


def summary_table() -> str:
    """One line per published group: the few numbers that a reader looks for first."""
    rows = []
    for experiment in select("sparse_vd.table1"):
        records = [r for r in collect([PUBLISHED]) if r.experiment == experiment.id]
        (cells,) = compare([experiment], records).values()
        for block in render.blocks([cell for cell in cells if cell.group is not None]):
            group = block[0].group
            assert group is not None
            found = {cell.measure.name: cell for cell in block}
            file_size = group.values("file_size")
            rows.append(
                (
                    experiment.title,
                    group.describe(),
                    *(
                        text(found[name])
                        for name in ("error", "compression")
                        for text in (render.paper_text, render.ours_text)
                    ),
                    f"{mean_and_deviation(file_size)[0] / 1000:,.1f}" if file_size else "–",
                    found["error"].verdict,
                )
            )
    header = (
        "network", "runs", "test error, %: paper", "ours", "compression, x: paper", "ours",
        "our file, kB", "error is",
    )  # fmt: skip
    return render.markdown_table(header, rows, (2, 3, 4, 5, 6))


def run_table() -> str:
    """What ran where, and how long a seed took."""
    rows = []
    for group in group_records(collect([PUBLISHED])):
        first: Record = group.records[0]
        device = first.devices
        where = f"{device['count']} x {device['kind']}, {device['cpu_cores']} processor cores"
        seconds = mean_and_deviation([r.seconds for r in group.records])[0]
        rows.append(
            (
                f"`{first.experiment}`",
                group.describe(),
                where,
                format_seconds(seconds),
                f"jax {first.packages['jax']}, Python {first.packages['python']}",
                first.code["commit"][:10] + ("+" if first.code["dirty"] else ""),
            )
        )
    header = ("experiment", "runs", "where", "time of a seed", "versions", "commit")
    return render.markdown_table(header, rows, (3,))


PARTS: dict[str, Callable[[], str]] = {
    "summary": summary_table,
    "table1": lambda: comparison_table("sparse_vd.table1"),
    "random-labels": lambda: comparison_table("sparse_vd.random-labels"),
    "perforated-table1": lambda: comparison_table("perforated_cnn.table1"),
    "perforated-table2": lambda: comparison_table("perforated_cnn.table2"),
    "perforated-table3": lambda: comparison_table("perforated_cnn.table3"),
    "perforated-figures": lambda: comparison_table("perforated_cnn.figure"),
    "perforated-speed": lambda: speed_table(collect([PUBLISHED])),
    "depth-table1": lambda: comparison_table("sact"),
    "depth-cost": lambda: depth.cost_table(collect([PUBLISHED])),
    "depth-ponder": lambda: depth.ponder_table(collect([PUBLISHED])),
    "pact-table1": lambda: comparison_table("pact.table1"),
    "pact-estimators": lambda: depth.estimator_table(collect([PUBLISHED])),
    "pact-parity": lambda: depth.parity_table(collect([PUBLISHED])),
    "runs": run_table,
    "bench-training": tables.training_benchmark,
    "bench-networks": tables.networks_benchmark,
    "first-output": tables.first_output,
    "bench-kernels": tables.kernels_benchmark,
    "break-even": tables.break_even_table,
    "compile-kernels": tables.compiled_kernels,
    "compile-steps": tables.compiled_steps,
    "bench-adaptive": tables.adaptive_benchmark,
}


def picture() -> str:
    """The README's picture, an SVG document: how LeNet-300-100 loses its weights."""
    from experiments.papers.sparse_vd.figures import figures
    from experiments.report.charts import Figure

    records = [
        r for r in collect([PUBLISHED]) if r.experiment.startswith("sparse_vd.table1.lenet-300-100")
    ]
    drawn = (f for f in figures(records) if isinstance(f, Figure))
    svg = next(f.svg[0] for f in drawn if f.title == "Sparsity over training")
    # Pages are light and dark; a picture outside of our own page brings its background along.
    return svg.replace("<defs>", '<rect width="100%" height="100%" fill="#ffffff"/>\n<defs>', 1)


def rendered(text: str, *, source: str) -> str:
    """A document with every part rendered again.

    Raises:
        UserError: it names a part that does not exist.
    """

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in PARTS:
            raise UserError(f"{source} has a part {name!r}; {did_you_mean(name, PARTS)}")
        return f"{match[1]}{PARTS[name]()}{match[4]}"

    return _PART.sub(replace, text)


def stale(documents: Sequence[str] = DOCUMENTS) -> list[str]:
    """Documents that rendering would change."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in documents}
    return [name for name, text in texts.items() if rendered(text, source=name) != text]


def update(documents: Sequence[str] = DOCUMENTS) -> list[str]:
    """Renders every document and the picture; returns those that changed."""
    changed = stale(documents)
    for name in changed:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        write_text_atomically(path, rendered(text, source=name))
    text = picture() + "\n"
    if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != text:
        PICTURE.parent.mkdir(exist_ok=True)
        write_text_atomically(PICTURE, text)
        changed.append(str(PICTURE.relative_to(ROOT)))
    before = KERNEL_PICTURE.read_bytes() if KERNEL_PICTURE.exists() else b""
    draw(tables.kernel_cases(), KERNEL_PICTURE)
    if KERNEL_PICTURE.read_bytes() != before:
        changed.append(str(KERNEL_PICTURE.relative_to(ROOT)))
    return changed
