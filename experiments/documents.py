"""The parts of README.md and BUILD_NOTES.md, and the picture, that are rendered from records.

A part stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Rendering replaces what is
between; a test fails when it is stale, so no number in these documents is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adaptive_nets.errors import UserError, did_you_mean
from adaptive_nets.files import write_text_atomically
from adaptive_nets.training.progress import format_seconds
from experiments import render
from experiments.bench.kernel_figure import draw
from experiments.bench.kernel_summary import break_evens, gigaflops, summary
from experiments.bench.networks import STAGES
from experiments.comparison import compare, group_records
from experiments.perforated_cnn.speed_table import speed_table
from experiments.registry import select
from experiments.results import PUBLISHED, Record, collect, mean_and_deviation
from experiments.sact import summary as depth

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "experiments/perforated_cnn/README.md",
    "experiments/sact/README.md",
    "experiments/pact/README.md",
    "README.md",
    "BUILD_NOTES.md",
    "kernels/README.md",
)
BENCHMARKS = PUBLISHED / "bench"
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


def _benchmark(name: str) -> dict[str, Any]:
    return json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))


def training_benchmark() -> str:
    """Our training step beside bare JAX."""
    content = _benchmark("training")
    rows = [
        (v["case"], v["contender"], f"{v['steps_per_second']:.0f}", f"{v['ratio']:.3f}")
        for v in content["values"]
    ]
    table = render.markdown_table(("network", "contender", "steps/s", "ours / this"), rows, (2, 3))
    first = content["values"][0]
    return (
        f"{table}\nMedians over {first['rounds']} rounds of {first['steps']} steps taken in turns; "
        f"jax {content['packages']['jax']}, {content['devices']['cpu_cores']} processor cores.\n"
    )


def networks_benchmark() -> str:
    """Forward passes beside PyTorch."""
    content = _benchmark("networks")
    values = content["values"]
    beside = {v["name"] for v in values if v["contender"] != "ours"}
    rows = [
        (
            v["name"],
            str(v["batch"]),
            v["contender"],
            f"{1e3 * v['seconds']:,.0f}",
            f"{v['batch'] * v['macs'] / v['seconds'] / 1e9:.0f}",
            f"{v['ratio']:.2f}",
        )
        for v in values
        if v["name"] in beside
    ]
    header = ("network", "batch", "contender", "forward, ms", "GMAC/s", "ours / this")
    packages = content["packages"]
    return (
        f"{render.markdown_table(header, rows, (1, 3, 4, 5))}\n"
        f"Medians over {values[0]['rounds']} rounds taken in turns, times of PyTorch "
        f"{packages.get('torch', 'not measured')} in a process of its own; jax {packages['jax']}, "
        f"{content['devices']['cpu_cores']} processor cores.\n"
    )


def first_output() -> str:
    """What passes between `create_model` and the first output of the deepest networks."""
    content = _benchmark("first-output")
    rows = [
        (
            v["name"],
            f"{v['macs'] / 1e9:.2f}",
            *(f"{v['first_output'][stage]:.1f}" for stage in STAGES),
            f"{sum(v['first_output'].values()):.1f}",
        )
        for v in content["values"]
    ]
    header = ("network", "GMACs", *(f"{stage}, s" for stage in STAGES), "first output after, s")
    return (
        f"{render.markdown_table(header, rows, range(1, len(header)))}\n"
        f"Batch {content['values'][0]['batch']}; jax {content['packages']['jax']}, "
        f"{content['devices']['cpu_cores']} processor cores.\n"
    )


KERNEL_RECORDS = ("kernels-fixed", "kernels-runtime")


def _kernel_cases() -> list[dict[str, Any]]:
    return [case for name in KERNEL_RECORDS for case in _benchmark(name)["values"]["cases"]]


def kernels_benchmark() -> str:
    """Perforated and masked convolution beside the dense one."""
    rows = [
        (
            row["name"],
            row["measure"],
            str(row["cases"]),
            f"{row['mean']:.2f}",
            f"{row['mean_beside_xla']:.2f}",
            f"{row['least']:.2f}",
            f"{row['slowest']:.2f}",
            f"{row['at_least']:.2f}",
            "met" if row["met"] else "missed",
        )
        for row in summary(_kernel_cases())
    ]
    header = (
        "what", "measure", "cases", "mean", "mean beside XLA alone", "least", "slowest, x", "aim",
        "",
    )  # fmt: skip
    content = _benchmark(KERNEL_RECORDS[0])
    packages, settings = content["packages"], content["values"]["settings"]
    speeds = gigaflops(content["values"]["cases"])
    return (
        f"{render.markdown_table(header, rows, tuple(range(2, 8)))}\n"
        f"{settings['dtype']}, batches {', '.join(map(str, settings['batches']))}; jax "
        f"{packages['jax']}, {content['devices']['cpu_cores']} processor cores. Medians of rounds "
        "taken in turns. Fixed masks (the first four rows) are held against the better of XLA's "
        f"dense convolution and that of PyTorch {packages['torch']} in a process of its own, the "
        "others against XLA's. Share: of the speed-up that the multiply-accumulates promise. "
        "Median speed over the layers with 64 channels and more: "
        f"{', '.join(f'{name} {speed:.0f}' for name, speed in speeds.items())} GFLOP/s, skipped "
        "positions not counted.\n"
    )


def break_even_table() -> str:
    """Up to which share of active positions a run-time mask pays, by layer."""
    found = break_evens(_kernel_cases())
    batches = sorted({batch for _, batch, _ in found})
    shares = {(layer, batch): share for layer, batch, share in found}

    def text(layer: str, batch: int) -> str:
        if (layer, batch) not in shares:
            return ""
        share = shares[layer, batch]
        return "never" if share is None else f"{100 * share:.0f} %"

    layers = list(dict.fromkeys(layer for layer, _, _ in found))
    rows = [(layer, *(text(layer, batch) for batch in batches)) for layer in layers]
    header = ("layer", *(f"batch {batch}" for batch in batches))
    return render.markdown_table(header, rows, tuple(range(1, len(header))))


def compiled_kernels() -> str:
    """What the compilers for accelerators say of the Pallas kernels."""
    content = _benchmark("compile-kernels")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kernel in content["kernels"]:
        groups.setdefault((kernel["device_kind"], kernel["implementation"]), []).append(kernel)
    rows = []
    for (device, implementation), compiled in groups.items():
        figures: dict[str, list[int]] = {}
        for kernel in compiled:
            for name, value in kernel.get("figures", {}).items():
                if isinstance(value, int):
                    figures.setdefault(name, []).append(value)
        spans = (
            f"{name.replace('_', ' ')} {min(values):,} – {max(values):,}"
            for name, values in figures.items()
            if max(values)
        )
        done = sum("figures" in kernel for kernel in compiled)
        rows.append((device, f"`{implementation}`", f"{done} of {len(compiled)}", "; ".join(spans)))
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    header = ("compiled for", "implementation", "programs", "figures, least – most")
    return f"{render.markdown_table(header, rows, (2,))}\n{versions}; no such device was at hand.\n"


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
    "bench-training": training_benchmark,
    "bench-networks": networks_benchmark,
    "first-output": first_output,
    "bench-kernels": kernels_benchmark,
    "break-even": break_even_table,
    "compile-kernels": compiled_kernels,
}


def picture() -> str:
    """The README's picture, an SVG document: how LeNet-300-100 loses its weights."""
    from experiments.report.charts import Figure
    from experiments.sparse_vd.figures import figures

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
    draw(_kernel_cases(), KERNEL_PICTURE)
    if KERNEL_PICTURE.read_bytes() != before:
        changed.append(str(KERNEL_PICTURE.relative_to(ROOT)))
    return changed
