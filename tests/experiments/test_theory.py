"""No published speed-up exceeds the saved multiplications without a reason."""

from __future__ import annotations

import json

import pytest

from experiments.shared.theory import REASON, above_theory, explained
from experiments.suite.records import PUBLISHED

# Kinds of kernel benchmarks whose baseline does the same work densely.
BENCHES = ("kernels-fixed", "kernels-runtime")


def listing(found):
    return "\n".join(
        f"{name}: {ratio} of the theoretical speed-up" for name, ratio in found.items()
    )


def test_a_speedup_above_the_theoretical_one_is_found():
    metrics = {
        "efficiency": {"value": 1.02, "note": ""},
        "efficiency_batch16": {"value": 1.3, "note": "batch 16"},
        "speed_share": {"value": 177.0, "note": ""},
        "speedup": {"value": 9.0, "note": ""},
        "macs_reduction": {"value": 2.0, "note": ""},
        "efficiency_batch1": {"value": None, "note": "undefined"},
    }
    assert above_theory(metrics) == pytest.approx({"efficiency_batch16": 1.3, "speed_share": 1.77})
    given = explained(metrics, "copies are not written")
    assert above_theory(given) == {}
    assert given["efficiency_batch16"]["note"] == f"batch 16; {REASON} copies are not written"
    assert given["speed_share"]["note"] == f"{REASON} copies are not written"
    assert given["efficiency"] == metrics["efficiency"]


def test_no_published_record_exceeds_its_theoretical_speedup():
    found = {}
    for path in sorted(PUBLISHED.glob("*/*/*.json")):
        metrics = json.loads(path.read_text()).get("metrics", {})
        for name, ratio in above_theory(metrics).items():
            found[f"{path.relative_to(PUBLISHED)} {name}"] = round(ratio, 2)
    assert not found, listing(found)


def test_no_kernel_benchmark_exceeds_its_theoretical_speedup():
    found = {}
    for name in BENCHES:
        cases = json.loads((PUBLISHED / "bench" / f"{name}.json").read_text())["values"]["cases"]
        for case in cases:
            # Layers of less than a millisecond measure the overhead of a call.
            slow = case["seconds"]["dense"] > 1e-3
            if slow and (case["share"] or 0) > 1.1 and REASON not in case.get("note", ""):
                label = f"{case['kind']} {case['layer']} batch {case['batch']} {case['fraction']}"
                found[label] = case["share"]
    assert not found, listing(found)
