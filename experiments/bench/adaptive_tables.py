"""Tables of networks that skip, rendered from their records."""

from __future__ import annotations

from typing import Any

from experiments.bench.published import BENCHMARKS, published
from experiments.suite import render


def _adaptive_records() -> list[dict[str, Any]]:
    """Returns the records of networks that skip, the largest images first."""
    contents = [published(path.stem) for path in sorted(BENCHMARKS.glob("adaptive-*.json"))]

    def size(content: dict[str, Any]) -> tuple[int, str, int]:
        settings = content["values"]["settings"]
        return -settings["height"], settings["name"], settings["batch"]

    return sorted(contents, key=size)


def _adaptive_title(settings: dict[str, Any]) -> str:
    shape = f"{settings['batch']} x {settings['height']} x {settings['width']}"
    return f"`{settings['name']}`, {shape}"


def adaptive_benchmark() -> str:
    """Renders time and FLOPs of the skipping form relative to the plain network."""
    rows = []
    contents = _adaptive_records()
    for content in contents:
        for part in content["values"]["parts"]:
            what = "" if part["part"] == "network" else f", {part['part']}"
            rows.append(
                (
                    _adaptive_title(content["values"]["settings"]) + what,
                    f"{part['flops_share']:.3f}",
                    f"{part['time_share']:.3f}",
                    f"{part['excess']:.3f}",
                    f"{1e3 * part['seconds']['plain']:.0f}",
                    f"{1e3 * part['seconds']['skipping']:.0f}",
                )
            )
    header = ("network, images", "FLOPs", "time", "time / FLOPs", "plain, ms", "skipping, ms")
    rounds = [part["rounds"] for content in contents for part in content["values"]["parts"]]
    first = contents[0]
    return (
        f"{render.markdown_table(header, rows, tuple(range(1, 6)))}\n"
        f"Random weights; medians over {min(rounds)} to {max(rounds)} interleaved rounds, jax "
        f"{first['packages']['jax']}, {first['devices']['cpu_cores']} CPU cores. Time and FLOPs "
        "are relative to the plain network.\n"
    )


def adaptive_time() -> str:
    """Returns one line: below which share of the FLOPs skipping is faster, for large images."""
    content = _adaptive_records()[0]
    even, title = content["values"]["break_even"], _adaptive_title(content["values"]["settings"])
    parts = [part for part in content["values"]["parts"] if part["part"] == "network"]
    least = min(parts, key=lambda part: part["flops_share"])
    faster = "never faster" if even is None else f"faster up to {100 * even:.0f} % of the FLOPs"
    return (
        f"- **Time of SACT.** {title}: skipping is {faster} of the plain network; at "
        f"{100 * least['flops_share']:.0f} % of the FLOPs it takes "
        f"{100 * least['time_share']:.0f} % of the plain time.\n"
    )
