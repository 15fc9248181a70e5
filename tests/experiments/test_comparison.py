"""Verdicts on made-up records, one rule at a time."""

from __future__ import annotations

import dataclasses

import pytest
from records_for_tests import made_up, write
from toy_papers import PRUNED, TRAINED

from experiments.suite.comparison import best_verdict_text, compare, compare_row, judge
from experiments.suite.groups import changes, group_records
from experiments.suite.paper_values import Measure
from experiments.suite.recipe import is_recipe
from experiments.suite.records import Record, collect, mean_and_deviation
from experiments.suite.registry import experiments, load_paper
from experiments.suite.render import markdown_cells, ours_text

pytestmark = pytest.mark.usefixtures("toy_paper")


def records(*contents, path="x.json"):
    return [Record(content, path) for content in contents]


def cells_of(*contents, experiment=PRUNED):
    (cells,) = compare([experiments()[experiment]], records(*contents)).values()
    return [cell for cell in cells if cell.verdict != "cited"]


def verdicts(*contents, **options):
    return {cell.measure.name: cell.verdict for cell in cells_of(*contents, **options)}


def test_without_records_nothing_was_run():
    assert set(verdicts().values()) == {"not run"}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(1.5, "reproduced"), (1.92, "reproduced"), (2.07, "reproduced"), (2.09, "differs")],
)
def test_lower_is_better_up_to_the_tolerance(error, verdict):
    assert verdicts(made_up(error=error))["error"] == verdict


@pytest.mark.parametrize(
    ("compression", "verdict"), [(200.0, "reproduced"), (61.5, "reproduced"), (55.0, "differs")]
)
def test_higher_is_better_and_the_tolerance_relative(compression, verdict):
    assert verdicts(made_up(compression=compression))["compression"] == verdict


@pytest.mark.parametrize(
    ("sparsity", "verdict"),
    [(62.0, "reproduced"), (66.9, "reproduced"), (68.0, "differs"), (55.0, "differs")],
)
def test_near_counts_on_both_sides(sparsity, verdict):
    assert verdicts(made_up(sparsity__fc3=sparsity))["sparsity.fc3"] == verdict


def test_half_of_the_last_printed_digit_is_nobodys_difference():
    measure = Measure("m", "m", "%", digits=1, better="lower", tolerance=1.0)
    group = group_records(records(made_up()))[0]
    assert judge(measure, 10.0, group, 11.04)[0] == "reproduced"
    assert judge(measure, 10.0, group, 11.06)[0] == "differs"


def test_smaller_data_or_schedule_is_reduced_however_good():
    assert verdicts(made_up(error=1.92, train=4000))["error"] == "reduced"
    assert verdicts(made_up(error=1.92, preset="quick"))["error"] == "reduced"


def test_changed_flags_are_never_reproduced():
    cells = cells_of(made_up(error=1.92, changed=["data.batch_size"]))
    (cell,) = [c for c in cells if c.measure.name == "error"]
    assert cell.verdict == "differs"
    assert "data.batch_size" in cell.reason


@pytest.mark.parametrize("name", ["data.train_limit", "optimiser.epsilon", "run.log_every"])
def test_a_changed_recipe_is_still_a_run_of_the_row(name):
    (cell,) = [c for c in cells_of(made_up(error=1.9, changed=[name])) if c.ours is not None]
    assert (cell.paper, cell.difference) == (1.92, pytest.approx(-0.02))


def changed_keep(**options):
    """A record of the pruned toy with another keep fraction, which defines its row."""
    content = made_up(error=1.92, changed=["pruning.keep"], **options)
    content["config"] = {"pruning": {"keep": 0.125}}
    return content | {"config_hash": "abcdef"}


@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_a_run_of_another_row_is_never_compared(preset):
    cells = cells_of(changed_keep(preset=preset))
    (other,) = [c for c in cells if c.group is not None]
    assert (other.verdict, other.paper, other.difference, other.ours) == (
        "other row", None, None, 1.92
    )  # fmt: skip
    assert other.name == "Small, Pruned; changed: pruning.keep=0.125"
    # The row itself keeps the paper's numbers and has no record.
    assert {c.verdict for c in cells if c.group is None} == {"not run"}
    assert best_verdict_text(experiments()[PRUNED], records(changed_keep())) == "not run"
    text = markdown_cells(cells)
    assert "| Small, Pruned; changed: pruning.keep=0.125<br>" in text
    assert "| test error, % |  | 1.92 |  | other row |" in text


@pytest.mark.parametrize("name", ["data.name", "data.labels", "model.name", "timing.batches"])
def test_the_data_set_its_labels_the_network_and_timed_batches_define_the_row(name):
    assert "other row" in {c.verdict for c in cells_of(made_up(error=1.9, changed=[name]))}


def test_an_experiment_names_further_values_of_its_recipe():
    experiment = dataclasses.replace(experiments()[PRUNED], recipe=("pruning.keep",))
    assert is_recipe("pruning.keep", experiment.recipe)
    assert not is_recipe("pruning.keep_all", experiment.recipe)
    assert not is_recipe("pruning.keep")


def test_the_unchanged_run_leads_then_the_fewest_changes_then_the_longest():
    def run(name, steps=10, **options):
        return made_up(error=1.9, **options) | {"config_hash": name, "steps": steps}

    groups = group_records(
        records(
            run("e", changed=["pruning.keep"], steps=10**6),
            run("d", preset="quick"),
            run("c", changed=["data.flip", "optimiser.name"]),
            run("b", changed=["data.flip"], steps=5),
            run("a", changed=["data.flip"], steps=50),
            run("unchanged", steps=1),
        )
    )
    names = [group.records[0].config_hash for group in groups]
    assert names == ["unchanged", "a", "b", "c", "d", "e"]


def test_flags_are_shown_with_the_values_they_were_changed_to():
    content = made_up(changed=["pruning.keep", "run.a", "run.b"])
    content["config"] = {"pruning": {"keep": 0.125}, "run": {"a": [1, 2], "b": "/tmp/runs/first"}}
    (record,) = records(content)
    assert changes(record) == "pruning.keep=0.125, run.a=1,2, run.b=first"
    assert changes(record, ("pruning.keep",)) == "pruning.keep=0.125"


def test_a_value_of_our_own_choice_is_no_comparison():
    experiment = dataclasses.replace(experiments()[PRUNED], chosen={"error": "target of our rule"})
    paper = load_paper("toy")
    cells = compare_row(
        paper, paper.rows[experiment.row], experiment, records(made_up(error=1.92, compression=70))
    )
    found = {c.measure.name: c for c in cells}
    assert (found["error"].verdict, found["error"].reason) == ("chosen", "target of our rule")
    assert found["error"].difference is None
    assert found["compression"].verdict == "reproduced"
    assert "| 1.92 | 1.92 |  | chosen (target of our rule) |" in markdown_cells(cells)


@pytest.mark.parametrize(("preset", "verdict"), [("paper", "measured"), ("quick", "reduced")])
def test_words_of_the_paper_stand_beside_our_number(preset, verdict):
    paper = load_paper("toy")
    row = dataclasses.replace(paper.rows["table1.small-pruned"], values={"error": "low"})
    content = records(made_up(error=1.9, preset=preset))
    (cell,) = compare_row(paper, row, experiments()[PRUNED], content)
    assert (cell.verdict, cell.difference, cell.paper) == (verdict, None, "low")
    assert "| low | 1.90 |  |" in markdown_cells([cell])
    assert (row.number("error"), row.number("compression")) == (None, None)


def test_a_measure_without_a_runner_and_a_row_without_one_say_why():
    paper = load_paper("toy")
    measure = dataclasses.replace(paper.measures["error"], unmeasured="nobody can")
    told = dataclasses.replace(paper, measures={**paper.measures, "error": measure})
    row = dataclasses.replace(paper.rows["table1.small-pruned"], values={"error": 1.0})
    (cell,) = compare_row(told, row, experiments()[PRUNED], records(made_up(compression=70)))
    assert (cell.verdict, cell.reason) == ("not run", "nobody can")
    other = dataclasses.replace(paper.rows["table1.small-other"], unmeasured="no time")
    cells = compare_row(paper, other, None, [])
    assert {(c.verdict, c.reason) for c in cells} == {("not run", "no time")}


def test_seeds_are_averaged_and_sizes_are_not():
    contents = [made_up(error=e, seed=s) for s, e in enumerate((1.8, 1.9, 2.0))]
    contents += [made_up(error=9.0, preset="quick", train=4000)]
    paper, quick = [c for c in cells_of(*contents) if c.measure.name == "error"]
    assert paper.ours == pytest.approx(1.9)
    assert paper.deviation == pytest.approx(0.1)
    assert ours_text(paper) == "1.90 ± 0.10"
    assert ours_text(quick) == "9.00"
    assert (paper.verdict, quick.verdict) == ("reproduced", "reduced")


def test_a_measure_that_a_run_lacks_is_not_run():
    cells = {c.measure.name: c for c in cells_of(made_up(error=1.9))}
    assert cells["compression"].verdict == "not run"
    assert cells["compression"].reason == "not measured by this run"


@pytest.mark.parametrize("error", [1.9, 5.0])
def test_beside_a_number_from_memory_nothing_is_judged(error):
    paper = load_paper("toy")
    row = dataclasses.replace(
        paper.rows["table1.small-pruned"], values={"error": 1.92}, tag="memory"
    )

    def verdict(**options):
        (cell,) = compare_row(
            paper, row, experiments()[PRUNED], records(made_up(error=error, **options))
        )
        return cell.verdict

    assert verdict() == "measured"
    assert verdict(preset="quick") == "reduced"
    assert verdict(changed=["data.batch_size"]) == "differs"


def test_a_known_explanation_follows_the_difference():
    cells = {c.measure.name: c for c in cells_of(made_up(error=2.9, compression=50.0))}
    assert cells["compression"].reason == "18 x below the paper: it is a toy"
    assert "toy" not in cells["error"].reason


def test_an_infinite_value_is_not_averaged_and_says_so():
    (cell,) = [c for c in cells_of(made_up(compression=None)) if c.measure.name == "compression"]
    assert cell.ours is None
    assert (cell.verdict, cell.reason) == ("differs", "infinite: no weight is kept")


@pytest.mark.parametrize(("steps", "verdict"), [(60000, "reduced"), (150000, "differs")])
def test_a_shorter_schedule_is_reduced_and_a_longer_one_differs(steps, verdict):
    record = made_up(TRAINED, error=1.92, changed=["schedule.length"]) | {"steps": steps}
    assert verdicts(record, experiment=TRAINED)["error"] == verdict


def test_a_difference_in_percent_is_in_percentage_points():
    (cell,) = [c for c in cells_of(made_up(error=2.9)) if c.measure.name == "error"]
    assert cell.reason.endswith("percentage points above the paper")


def test_rows_of_other_methods_are_cited_beside_ours():
    (cells,) = compare([experiments()[PRUNED]], []).values()
    methods = {cell.row.method for cell in cells if cell.verdict == "cited"}
    assert methods == {"Other (Nobody 1998)"}
    assert {cell.row.network for cell in cells} == {"Small"}


def test_state_in_a_list():
    experiment = experiments()[PRUNED]
    assert best_verdict_text(experiment, []) == "not run"
    assert best_verdict_text(experiment, records(made_up(preset="quick", error=5.0))) == "reduced"
    good = made_up(error=1.9, compression=70.0)
    assert best_verdict_text(experiment, records(good)) == "reproduced 2/5"


def test_tables_hold_every_number():
    contents = [made_up(error=1.91, compression=70.0, sparsity__fc1=98.8)]
    (cells,) = compare([experiments()[PRUNED], experiments()[TRAINED]], records(*contents)).values()
    text = markdown_cells(cells)
    for number in ("1.91", "1.92", "-0.01", "98.8", "reproduced", "not run", "cited"):
        assert number in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_the_newest_of_two_records_of_one_seed_counts(tmp_path):
    old, new = made_up(error=5.0), made_up(error=1.9)
    new["finished"] = "2026-12-01T00:00:00+00:00"
    write(old, tmp_path / "a")
    write(new, tmp_path / "b")
    (record,) = collect([tmp_path / "b", tmp_path / "a"])
    assert record.metric("error").value == 1.9


def test_mean_and_deviation():
    assert mean_and_deviation([3.0]) == (3.0, 0.0)
    mean, deviation = mean_and_deviation([1.0, 2.0, 3.0])
    assert (mean, deviation) == (2.0, 1.0)
