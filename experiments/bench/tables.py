"""Tables of benchmarks for documents, rendered from their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.bench import sparse
from experiments.bench.adaptive_tables import adaptive_benchmark, adaptive_time
from experiments.bench.kernel_summary import break_evens, gigaflops, summary
from experiments.bench.networks import STAGES
from experiments.bench.published import BENCHMARKS, published
from experiments.suite import render


def training_benchmark() -> str:
    """Renders our training step beside bare JAX."""
    content = published("training")
    rows = [
        (v["case"], v["contender"], f"{v['steps_per_second']:.0f}", f"{v['ratio']:.3f}")
        for v in content["values"]
    ]
    table = render.markdown_table(("network", "contender", "steps/s", "ours / this"), rows, (2, 3))
    first = content["values"][0]
    return (
        f"{table}\nMedians over {first['rounds']} interleaved rounds of {first['steps']} steps; "
        f"jax {content['packages']['jax']}, {content['devices']['cpu_cores']} CPU cores.\n"
    )


def training_steps_benchmark() -> str:
    """Renders our training steps beside PyTorch's, of one record for each batch size."""
    contents = [published(path.stem) for path in sorted(BENCHMARKS.glob("training-steps-*.json"))]
    values = sorted(
        (v for content in contents for v in content["values"]), key=lambda v: -v["batch"]
    )
    rows = [
        (
            f"`{v['network']}`",
            str(v["batch"]),
            v["contender"],
            f"{1e3 * v['seconds_per_step']:,.0f}",
            f"{v['examples_per_second']:,.{0 if v['examples_per_second'] >= 100 else 1}f}",
            f"{v['ratio']:.2f}",
        )
        for v in values
    ]
    header = ("network", "batch", "contender", "step, ms", "examples/s", "ours / this")
    rounds = [v["rounds"] for v in values]
    torch = {c["packages"]["torch"] for c in contents if "torch" in c["packages"]}
    first, load = contents[0], max(c["machine"]["load_at_start"][0] for c in contents)
    return (
        f"{render.markdown_table(header, rows, (1, 3, 4, 5))}\n"
        f"Medians over {min(rounds)} to {max(rounds)} interleaved rounds; PyTorch "
        f"{', '.join(sorted(torch))} in its own process, in the faster of its two layouts; jax "
        f"{first['packages']['jax']}, {first['devices']['cpu_cores']} CPU cores, load at most "
        f"{load:.1f} at the start.\n"
    )


def startup_benchmark() -> str:
    """Renders the time of imports, listings and starts of a run."""
    content = published("startup")
    rows = [
        (
            f"`{v['what']}`" if "," not in v["what"] else v["what"],
            f"{v['seconds']:.2f}",
            "" if v["compile_seconds"] is None else f"{v['compile_seconds']:.2f}",
        )
        for v in content["values"]
    ]
    table = render.markdown_table(("what", "s", "of it compiling, s"), rows, (1, 2))
    return (
        f"{table}\nEach in a new process, median of {content['values'][0]['repetitions']}, runs "
        f"once; jax {content['packages']['jax']}, {content['devices']['cpu_cores']} CPU cores.\n"
    )


def networks_benchmark() -> str:
    """Renders forward passes beside PyTorch."""
    content = published("networks")
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
        f"Medians over {values[0]['rounds']} interleaved rounds; PyTorch "
        f"{packages.get('torch', 'not measured')} in its own process; jax {packages['jax']}, "
        f"{content['devices']['cpu_cores']} CPU cores.\n"
    )


def first_output() -> str:
    """Renders the time from `create_model` to the first output of the deepest networks."""
    content = published("first-output")
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
        f"{content['devices']['cpu_cores']} CPU cores.\n"
    )


KERNEL_RECORDS = ("kernels-fixed", "kernels-runtime")


def kernel_cases() -> list[dict[str, Any]]:
    """Returns all cases of the published kernel benchmarks."""
    return [case for name in KERNEL_RECORDS for case in published(name)["values"]["cases"]]


def kernels_benchmark() -> str:
    """Renders the targets of perforated and masked convolution, and the measured means."""
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
        for row in summary(kernel_cases())
    ]
    header = (
        "setting", "measure", "cases", "mean", "mean against XLA alone", "least", "slowest, x",
        "target", "",
    )  # fmt: skip
    content = published(KERNEL_RECORDS[0])
    packages, settings = content["packages"], content["values"]["settings"]
    speeds = gigaflops(content["values"]["cases"])
    return (
        f"{render.markdown_table(header, rows, tuple(range(2, 8)))}\n"
        f"{settings['dtype']}, batches {', '.join(map(str, settings['batches']))}; jax "
        f"{packages['jax']}, {content['devices']['cpu_cores']} CPU cores. Medians of "
        "interleaved rounds. Fixed masks (the first four rows) are compared with the faster of "
        f"XLA's dense convolution and PyTorch's ({packages['torch']}, in its own process), other "
        "rows with XLA's. Share is the measured over the theoretical speed-up, which is the ratio "
        "of multiply-accumulates. Median throughput over layers with at least 64 channels: "
        f"{', '.join(f'{name} {speed:.0f}' for name, speed in speeds.items())} GFLOP/s; skipped "
        "positions do not count.\n"
    )


def break_even_table() -> str:
    """Renders the break-even share of active positions by layer and batch size."""
    found = break_evens(kernel_cases())
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
    """Renders the results of compiling the Pallas kernels for accelerators."""
    content = published("compile-kernels")
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
    header = ("compiled for", "implementation", "programs", "figures, smallest – largest")
    return (
        f"{render.markdown_table(header, rows, (2,))}\n"
        f"{versions}; compiled only, not run on a device.\n"
    )


def compiled_steps() -> str:
    """Renders the results of compiling whole training steps for accelerators."""
    content = published("compile-steps")
    rows = []
    for step in content["steps"]:
        memory = step["memory_per_device"]
        needed = memory["arguments"] + memory["outputs"] + memory["temporary"]
        needed -= memory["shared_with_arguments"]
        communicated = "; ".join(
            f"{kind} {each['bytes'] / 1e6:.1f} MB" for kind, each in step["collectives"].items()
        )
        rows.append(
            (
                f"{step['devices']} x {step['device_kind']}",
                f"`{step['network']}`",
                str(step["batch"]),
                "parameters" if step["shard_parameters"] else "data",
                f"{needed / 2**30:.2f}",
                communicated,
                f"{step['parameter_bytes'] / 1e6:.1f}",
            )
        )
    header = (
        "compiled for", "network", "batch", "sharded", "GiB per device", "communicated per step",
        "parameters, MB",
    )  # fmt: skip
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    return (
        f"{render.markdown_table(header, rows, (2, 4, 6))}\n"
        f"{versions}; compiled only, not run on a device.\n"
    )


def sparse_benchmark() -> str:
    """Renders products with pruned matrices beside the dense product."""
    content = published("sparse")
    values = content["values"]
    sparsities = sorted({v["sparsity"] for v in values})
    lines = []
    for key in dict.fromkeys((v["inputs"], v["outputs"], v["batch"]) for v in values):
        for contender in (sparse.OURS, sparse.BCOO):
            found = {
                v["sparsity"]: v["ratio"]
                for v in values
                if (v["inputs"], v["outputs"], v["batch"]) == key and v["contender"] == contender
            }
            lines.append(
                (f"{key[0]} x {key[1]}", str(key[2]), contender,
                 *(f"{found[s]:.2f}" for s in sparsities))
            )  # fmt: skip
    header = ("matrix", "batch", "form", *(f"{100 * s:g} % zeros" for s in sparsities))
    table = render.markdown_table(header, lines, range(3, 3 + len(sparsities)))
    first = values[0]
    load = content["machine"]["load_at_start"][0]
    return (
        f"{table}\nTimes as fast as the dense product, medians over {first['rounds']} interleaved "
        f"rounds; jax {content['packages']['jax']}, {content['devices']['cpu_cores']} CPU cores, "
        f"load {load:.1f} at the start.\n"
    )


PARTS: dict[str, Callable[[], str]] = {
    "bench-training": training_benchmark,
    "bench-training-steps": training_steps_benchmark,
    "bench-startup": startup_benchmark,
    "bench-networks": networks_benchmark,
    "bench-sparse": sparse_benchmark,
    "first-output": first_output,
    "bench-kernels": kernels_benchmark,
    "break-even": break_even_table,
    "compile-kernels": compiled_kernels,
    "compile-steps": compiled_steps,
    "bench-adaptive": adaptive_benchmark,
    "adaptive-time": adaptive_time,
}
