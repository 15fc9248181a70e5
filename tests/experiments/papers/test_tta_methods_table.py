"""Tables, sentences and figures of the methods from made-up records."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.papers.tta.methods import answers as methods_answers
from experiments.papers.tta.methods import figures as methods_figures
from experiments.papers.tta.methods import table as methods_table
from experiments.papers.tta.methods.presets import METHODS, PREFIX
from experiments.report.charts import Figure, Missing
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import ARRAYS, Record, Surroundings, make_record, write_arrays

COUNTS = [1, 2, 5]
REFERENCE = np.array([-1.0, -0.9, -0.85, -0.82, -0.8])
AUGMENTED_REFERENCE = np.array([-1.1, -0.9, -0.8, -0.75, -0.7])
CLL = {
    "single": ([-1.0, -1.0, -1.0], [-1.1, -0.95, -0.85]),
    "de": ([-1.0, -0.9, -0.8], [-1.1, -0.9, -0.7]),
    "sse": ([-1.1, -1.0, -0.88], [-1.2, -1.0, -0.83]),
    "vi": ([-1.02, -0.97, -0.95], [-1.12, -0.97, -0.96]),
}
LL = {"single": -1.5, "de": -0.9, "sse": -0.95, "vi": -0.85}
STEPS = {"single": 100, "de": 500, "sse": 400, "vi": 200}


def record(name: str, folder: Path, *, preset: str = "day", seed: int = 0) -> Record:
    (experiment,) = (e for e in METHODS if e.id == PREFIX + name)
    arrays: dict[str, Any] = {}
    for prefix, curve in zip(("", "tta/"), CLL[name], strict=True):
        arrays |= {
            f"{prefix}counts": np.array(COUNTS),
            f"{prefix}calibrated_ll": np.array(curve),
            f"{prefix}ll": np.array([-2.0, -1.0, LL[name]]),
            f"{prefix}error": 30 + 10 * -np.array(curve),
        }
    if name == "de":
        arrays |= {"reference/mean": REFERENCE, "tta/reference/mean": AUGMENTED_REFERENCE}
    outcome = Outcome(
        {"training_steps": Metric(float(STEPS[name]), "steps")}, arrays, seconds=1.0, steps=100
    )
    dataset: Any = SimpleNamespace(
        name="cifar10", source="files", complete=True, fingerprint="ab" * 32,
        count={"train": 50000, "test": 10000}.get,
    )  # fmt: skip
    content = make_record(
        experiment, preset=preset, seed=seed, config=experiment.presets[preset].config,
        dataset=dataset, outcome=outcome, curves={},
        surroundings=Surroundings({"commit": "0" * 16, "dirty": False}, (0.1, 0.2), {}),
    )  # fmt: skip
    place = folder / f"{name}-{preset}" / f"seed{seed}"
    write_arrays(place / ARRAYS, arrays)
    return Record(content, place / "record.json")


@pytest.fixture
def records(tmp_path) -> list[Record]:
    return [record(name, tmp_path) for name in ("vi", "sse", "de", "single")]


def line(text: str, *words: str) -> list[str]:
    (found,) = (x for x in text.splitlines() if all(word in x for word in words))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_equivalents_use_the_deep_ensemble_of_the_same_augmentation(records):
    (comparison,) = methods_table.comparisons(records)
    assert list(comparison.methods) == ["single", "de", "sse", "vi"]
    np.testing.assert_array_equal(comparison.equivalents("de"), COUNTS)
    np.testing.assert_array_equal(comparison.equivalents("de", "tta/"), COUNTS)
    np.testing.assert_allclose(comparison.equivalents("sse"), [1, 1, 2.4])
    # Between −0.9 at two members and −0.8 at three.
    np.testing.assert_allclose(comparison.equivalents("single", "tta/"), [1, 1.75, 2.5])
    np.testing.assert_allclose(comparison.equivalents("single"), [1, 1, 1])


def test_the_table_has_a_line_for_each_method(records):
    text = methods_table.methods_table(records)
    cells = line(text, "| SSE |")
    assert cells[2:] == [
        "5", "400", "38.80", "-0.9500", "-0.8800", "2.4", "38.30", "-0.9500", "-0.8300", "2.7"
    ]  # fmt: skip
    assert "preset day, 1 seed, 50,000 training images; *reduced*" in text
    text = methods_table.equivalents_table(records)
    assert line(text, "| single network, TTA |")[-1] == "-0.8500 / 2.5"


def test_steps_include_those_of_a_given_network(tmp_path, records):
    (comparison,) = methods_table.comparisons(records)
    assert comparison.steps("vi") == STEPS["vi"]
    comparison.methods["vi"].group.records[0].content["config"]["weights"] = "runs/single"
    assert comparison.steps("vi") == STEPS["vi"] + STEPS["single"]


def test_rank_correlations_of_ours_and_of_the_paper(records):
    text = methods_table.ranks_table(records)
    # By LL: vi, de, sse, single; by CLL: de, sse, vi, single.
    assert line(text, "ours", "images as they are")[-3:] == ["4", "0.40", "1.00"]
    for lls, clls, accuracies in methods_table.paper_scores().values():
        assert len(lls) == len(clls) == len(accuracies) >= 7
        assert methods_table.rank_correlation(lls, clls) > 0.5
    assert "VGG16BN on CIFAR-100" in text


def test_rank_correlation_is_undefined_for_few_or_equal_values():
    assert methods_table.rank_correlation([1, 2], [2, 1]) is None
    assert methods_table.rank_correlation([1, 1, 1], [2, 1, 3]) is None
    assert methods_table.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_the_answers_follow_the_numbers(records):
    text = methods_answers.answers(records)
    assert "With 5 views its CLL is -0.8500, without views -1.0000." in text
    assert "It reaches 2 of 3 methods" in text
    assert "(SSE and VI); deep ensemble is better." in text
    assert "of 3.0 members" in text
    assert "improves the CLL of 3 of 4 methods, not of VI." in text
    assert "differs from that by CLL at 3 of 4 places (rank correlation 0.40)" in text
    assert "has 21.06 % error" in text


def test_without_a_deep_ensemble_nothing_is_compared(tmp_path, records):
    for chosen in ([], [record("single", tmp_path)], [record("de", tmp_path, preset="smoke")]):
        for part in (methods_table.methods_table, methods_table.equivalents_table):
            assert part(chosen).startswith("Not run")
        assert methods_answers.answers(chosen).startswith("Not run")
        (missing,) = methods_figures.method_figures(chosen)
        assert isinstance(missing, Missing)
        assert all(draw(chosen) == "" for draw in methods_figures.PICTURES.values())


def test_presets_are_compared_apart_and_seeds_averaged(tmp_path, records):
    more = [record("de", tmp_path, preset="quick"), record("de", tmp_path, seed=1)]
    found = methods_table.comparisons([*records, *more])
    assert [c.methods["de"].group.preset for c in found] == ["day", "quick"]
    assert len(found[0].methods["de"].group.records) == 2
    np.testing.assert_allclose(found[0].methods["de"].curve("calibrated_ll"), CLL["de"][0])


def test_the_papers_table_has_its_numbers():
    text = methods_table.paper_table([])
    assert line(text, "| deep ensemble |", "21.19")[-1] == "50.0"
    assert line(text, "| SSE |", "26.8")[1] == "21.03 / 26.8"


def test_figures_have_every_method(records):
    (figure,) = methods_figures.method_figures(records)
    assert isinstance(figure, Figure)
    assert len(figure.svg) == 4
    assert len(figure.data["rows"]) == 2 * len(CLL) * len(COUNTS)
    for draw in methods_figures.PICTURES.values():
        assert "<svg" in draw(records)
