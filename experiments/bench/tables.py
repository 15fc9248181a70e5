"""Tables of documents, rendered from the records of benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from experiments.bench.kernel_summary import break_evens, gigaflops, summary
from experiments.bench.networks import STAGES
from experiments.suite import render
from experiments.suite.records import PUBLISHED

BENCHMARKS = PUBLISHED / "bench"


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


def kernel_cases() -> list[dict[str, Any]]:
    """All cases of the published benchmarks of kernels."""
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
        for row in summary(kernel_cases())
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


def compiled_steps() -> str:
    """What the compilers for accelerators say of whole training steps."""
    content = _benchmark("compile-steps")
    rows = []
    for step in content["steps"]:
        memory = step["memory_per_device"]
        needed = memory["arguments"] + memory["outputs"] + memory["temporary"]
        needed -= memory["shared_with_arguments"]
        told = "; ".join(
            f"{kind} {each['bytes'] / 1e6:.1f} MB" for kind, each in step["collectives"].items()
        )
        rows.append(
            (
                f"{step['devices']} x {step['device_kind']}",
                f"`{step['network']}`",
                str(step["batch"]),
                "parameters" if step["shard_parameters"] else "data",
                f"{needed / 2**30:.2f}",
                told,
                f"{step['parameter_bytes'] / 1e6:.1f}",
            )
        )
    header = (
        "compiled for", "network", "batch", "divided", "GiB on a device", "told per step",
        "parameters, MB",
    )  # fmt: skip
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    return (
        f"{render.markdown_table(header, rows, (2, 4, 6))}\n"
        f"{versions}; no such device was at hand.\n"
    )


def adaptive_benchmark() -> str:
    """Time of a network that skips, over the plain one's, beside FLOPs."""
    content = _benchmark("adaptive")
    settings = content["values"]["settings"]
    rows = [
        (
            part["part"],
            f"{100 * part['stop_early']:.0f} %",
            f"{1e3 * part['seconds']['plain']:.0f}",
            f"{1e3 * part['seconds']['skipping']:.0f}",
            f"{part['time_share']:.3f}",
            f"{part['flops_share']:.3f}",
            f"{part['excess']:.3f}",
        )
        for part in content["values"]["parts"]
    ]
    header = (
        "part", "stop early", "plain, ms", "skipping, ms", "time", "FLOPs", "time / FLOPs",
    )  # fmt: skip
    return (
        f"{render.markdown_table(header, rows, tuple(range(1, 7)))}\n"
        f"`{settings['name']}`, {settings['batch']} x {settings['height']} x {settings['width']}, "
        f"random weights; medians over {content['values']['parts'][0]['rounds']} rounds taken in "
        f"turns, jax {content['packages']['jax']}, {content['devices']['cpu_cores']} processor "
        "cores. Shares are of the plain network.\n"
    )


def adaptive_time() -> str:
    """One line: time of a network that skips, beside the FLOPs it saves."""
    content = _benchmark("adaptive")
    settings, whole = content["values"]["settings"], content["values"]["parts"][0]
    share = whole["time_share"]
    verdict = "not faster yet" if share >= 1 else f"{1 / share:.2f} times as fast"
    return (
        f"- **Time of SACT.** `{settings['name']}` at {settings['height']} x {settings['width']} "
        f"pixels, skipping, spends {whole['flops_share']:.2f} of the plain network's FLOPs and "
        f"takes {share:.2f} of its time: {verdict}.\n"
    )


PARTS: dict[str, Callable[[], str]] = {
    "bench-training": training_benchmark,
    "bench-networks": networks_benchmark,
    "first-output": first_output,
    "bench-kernels": kernels_benchmark,
    "break-even": break_even_table,
    "compile-kernels": compiled_kernels,
    "compile-steps": compiled_steps,
    "bench-adaptive": adaptive_benchmark,
    "adaptive-time": adaptive_time,
}
