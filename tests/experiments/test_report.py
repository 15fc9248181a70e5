"""The report: complete, self-contained, escaped, and the same for the same records."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import re

import numpy as np
import pytest
from parsed_page import Parsed
from records_for_tests import write_run
from toy_papers import PRUNED, TRAINED

from adaptive_nets.runtime.errors import UserError
from experiments.commands import report as command
from experiments.report import page
from experiments.report.charts import Figure, Missing
from experiments.report.markup import Markup, element
from experiments.report.provenance import command as command_of
from experiments.report.settings import Role, curve, settings_of
from experiments.shared.adaptive_depth.figures import mean_map_text
from experiments.suite import registry, render
from experiments.suite.comparison import compare
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import ARRAYS, Record, collect
from experiments.suite.registry import experiments, select

pytestmark = pytest.mark.usefixtures("toy_paper")

NOON = datetime.datetime(2025, 3, 6, 12, tzinfo=datetime.UTC)


def make_outcome(name: str, seed: int, *, empty: bool) -> Outcome:
    """Returns a made-up outcome of the experiment."""
    metrics = {
        "error": Metric(1.9 + 0.05 * seed, "%", 10000),
        "compression": Metric(1.0, "x", 1, "every weight is kept"),
        "file_size": Metric(1070524.0, "bytes"),
    }
    if name == PRUNED:
        value, note = (None, "infinite: no weight is kept") if empty else (70.0 + seed, "")
        metrics |= {
            "sparsity.fc1": Metric(100.0 if empty else 98.5, "%", 1000),
            "compression": Metric(value, "x", 3000, note),
            "file_size": Metric(21000.0, "bytes"),
        }
    kept = np.random.default_rng(seed).integers(0, 9, 20).astype(np.int32)
    return Outcome(metrics, {"kept": kept}, seconds=4000.0 + seed, steps=1000)


def make_curves(last: int = 1000) -> dict:
    steps = list(range(last // 10, last + 1, last // 10))
    return {
        "test/error": [[s, 0.1 / (1 + s / 100)] for s in steps],
        "train/nll": [[s, 0.0 if s == last else 0.2 / s] for s in steps],
    }


def write_record(root, name, *, seed=0, empty=False, **options) -> Record:
    """Writes the record and arrays of one seed below a folder, and returns the record."""
    outcome = make_outcome(name, seed, empty=empty)
    return write_run(root, name, outcome, make_curves(), seed=seed, **options)


@pytest.fixture
def write(tmp_path):
    """`write_record` below a folder of the test."""
    return functools.partial(write_record, tmp_path / "runs")


@pytest.fixture(scope="module")
def records(toy_paper, tmp_path_factory) -> list[Record]:
    """Two full networks, and a quick run beside one of them."""
    write = functools.partial(write_record, tmp_path_factory.mktemp("records"))
    return [
        *(write(TRAINED, seed=seed) for seed in range(2)),
        *(write(PRUNED, seed=seed) for seed in range(2)),
        write(PRUNED, preset="quick", complete=False),
    ]


def figures(records) -> list[Figure | Missing]:
    """The figures of the paper."""
    return registry.papers()["toy"].load("figures").figures(records)


@pytest.fixture(scope="module")
def text(records) -> str:
    """The page of the paper."""
    return rendered(records)


def rendered(records, time=NOON) -> str:
    return page.render(records, rendered=time, experiments=select("toy"))


def assert_sound(text: str) -> Parsed:
    """It is HTML that closes what it opens and refers to nothing outside itself."""
    parsed = Parsed(text)
    assert parsed.wrong == []
    assert parsed.open == []
    # Names of XML vocabularies are identifiers; nothing is fetched from them.
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without_names
    assert "https://" not in without_names
    assert "@import" not in text
    assert all(v.startswith("data:image/png;base64,") for v in parsed.values("src"))
    assert all(v.startswith("#") for v in parsed.values("href"))
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    # One script, the page's own, which the policy admits by its digest and no other.
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in text
    ids = parsed.values("id")
    links = [v[1:] for tag, name, v in parsed.attributes if name == "href" and tag == "a"]
    assert set(links) <= set(ids)
    return parsed


def test_without_records_everything_is_not_run_and_the_page_says_how_to_run_it():
    parsed = assert_sound(page.render([], rendered=NOON))
    assert "There is no record of a run yet" in parsed.words
    assert "0 reproduced" in parsed.words
    for name in experiments():
        assert f"adaptive-nets run {name} --preset quick" in parsed.words
    ours = [row for row in parsed.rows if row and row[-1].startswith("○ not run")]
    expected = [c for cells in compare(list(experiments().values()), []).values() for c in cells]
    assert len(ours) == sum(c.verdict == "not run" for c in expected)
    (missing,) = figures([])
    assert missing.what in parsed.words
    assert missing.commands[0] in parsed.words


def test_every_cell_of_the_comparison_appears(records, text):
    parsed = assert_sound(text)
    rows = {tuple(row) for row in parsed.rows}
    tables = compare(select("toy"), records)
    for cell in (cell for cells in tables.values() for cell in cells):
        if cell.verdict == "cited":
            value = render.paper_text(cell)
            assert f"{cell.measure.title} {value} {cell.measure.unit}" in parsed.words
            continue
        wanted = (
            render.measure_text(cell),
            render.paper_text(cell),
            render.ours_text(cell),
            render.difference_text(cell).replace("-", "−"),
        )
        found = [row for row in rows if row[:4] == wanted]
        assert any(cell.verdict in row[4] and cell.reason in row[4] for row in found), wanted
    for experiment in select("toy"):
        assert experiment.deviations
        for sentence in experiment.deviations:
            assert sentence in parsed.words


def test_the_filter_offers_every_paper_and_status_of_the_page(records, text):
    form = text[text.index("<form") : text.index("</form>")]
    offered = set(re.findall(r'<option value="(\w*)"', form))
    assert offered == {"", *re.findall(r'<section id="(\w+)" class="of-paper"', text)}
    boxes = re.findall(r'value="([\w ]+)" checked', form)
    assert set(re.findall(r'data-status="([\w ]+)"', text)) <= set(boxes)
    # Without scripts the form does nothing, so it stays out of sight.
    assert 'id="filter" hidden' in form


def test_mean_deviation_and_number_of_seeds_are_shown(text):
    parsed = Parsed(text)
    row = next(r for r in parsed.rows if r[:2] == ["compression, x", "68"])
    assert row[2:] == ["70 ± 1", "+2", "✓ reproduced"]
    assert ["compression", "70.50 ± 0.71", "x", "3,000", ""] in parsed.rows
    assert ["file_size", "21,000 ± 0", "bytes", "1", ""] in parsed.rows
    assert "preset paper, 2 seeds, 60,000 images" in parsed.words


def test_full_and_quick_runs_of_one_experiment_both_appear(text):
    parsed = Parsed(text)
    assert "preset paper, 2 seeds, 60,000 images" in parsed.words
    assert "preset quick, 1 seed, 4,000 images" in parsed.words
    for preset, seeds in (("paper", 2), ("quick", 1)):
        assert f"adaptive-nets run {PRUNED} --preset {preset} --seeds {seeds}" in parsed.words


def test_infinite_compression_is_a_sign_with_its_note(write):
    parsed = Parsed(rendered([write(PRUNED, empty=True)]))
    note = "infinite: no weight is kept"
    assert ["compression", "∞", "x", "3,000", note] in parsed.rows
    compared = next(row for row in parsed.rows if row[:2] == ["compression, x", "68"])
    assert compared[2:4] == ["∞", ""]
    assert note in compared[4]


def test_what_records_say_is_escaped(write):
    evil = "<script>alert('&\"')</script>"

    def edit(content):
        content["dataset"]["name"] = content["dataset"]["source"] = evil
        content["code"]["commit"] = "<b>bold</b>"
        content["packages"][evil] = evil
        content["kernels"] = {evil: evil}
        content["devices"]["kind"] = evil
        content["changed"] = [f"data.{evil}"]
        content["metrics"]["error"]["note"] = evil
        content["metrics"][f"sparsity.{evil}"] = content["metrics"]["sparsity.fc1"]

    text = rendered([write(PRUNED, edit=edit)])
    parsed = assert_sound(text)
    assert "<script>alert" not in text
    assert "<b>bold" not in text
    assert evil in parsed.words


def test_the_same_records_give_the_same_page_but_for_its_time(write):
    records = [write(TRAINED), write(PRUNED, preset="quick"), write(TRAINED, seed=1)]
    first = rendered(records)
    later = rendered(records[::-1], time=NOON + datetime.timedelta(hours=1))
    assert later != first
    assert later.replace("13:00", "12:00") == first


def test_figures_stand_on_the_page_with_their_numbers(records, text):
    (figure,) = figures(records)
    parsed = Parsed(text)
    assert figure.title in parsed.words
    assert figure.caption in parsed.words
    assert figure.svg[0] in text
    assert " ".join(f"{column},{kept}" for column, kept in figure.data["rows"]) in parsed.words
    assert len(text) < 200_000


def test_a_selection_says_nothing_of_other_experiments():
    words = assert_sound(page.render([], rendered=NOON, experiments=select(TRAINED))).words
    assert TRAINED in words
    assert PRUNED not in words


def test_records_without_arrays_lose_only_the_figures_made_from_them(write):
    record = write(PRUNED)
    record.path.with_name(ARRAYS).unlink()
    parsed = assert_sound(rendered([record]))
    assert "Kept weights are not drawn: no record" in parsed.words
    assert ["compression", "70", "x", "3,000", ""] in parsed.rows


def test_runs_of_different_sizes_are_never_drawn_together(write):
    dense, quick = write(TRAINED), write(PRUNED, preset="quick", complete=False)
    roles = [Role("a", "#000001", experiments()[name]) for name in (PRUNED, TRAINED)]
    settings = settings_of(*roles, [dense, quick])
    assert [(s.main is None, s.beside is None) for s in settings] == [(False, True), (True, False)]
    smoke = write(PRUNED, preset="smoke", complete=False)
    assert len(settings_of(*roles, [dense, quick, smoke])) == 2
    assert len(settings_of(*roles, [smoke])) == 1


def test_curves_average_the_steps_that_all_seeds_share(write):
    def shorter(content):
        content["history"]["test/error"] = [[200, 0.5], [450, 0.9]]

    group = settings_of(
        *(Role("a", "#000001", experiments()[name]) for name in (TRAINED, PRUNED)),
        [write(TRAINED), write(TRAINED, seed=1, edit=shorter)],
    )[0].main
    values = curve(group, "test/error", scale=100.0)
    assert values is not None
    assert values.epochs == (pytest.approx(200 / 600),)
    assert values.low == (pytest.approx(10 / 3),)
    assert values.high == (50.0,)
    assert values.mean == (pytest.approx((10 / 3 + 50) / 2),)
    assert curve(group, "absent") is None


def test_the_command_repeats_changed_flags(write):
    def edit(content):
        content["changed"] = ["data.flip", "schedule.boundaries", "schedule.length"]
        content["config"]["data"] |= {"flip": False, "source": "embedded"}
        content["config"]["schedule"] |= {"length": "300 steps", "boundaries": ["1%", "2%"]}

    group = settings_of(
        *(Role("a", "#000001", experiments()[name]) for name in (TRAINED, PRUNED)),
        [write(TRAINED, seed=2, edit=edit)],
    )[0].main
    assert group is not None
    assert command_of(group) == (
        f"adaptive-nets run {TRAINED} --preset paper --seeds 3 --data.no-flip "
        "--schedule.boundaries 1% 2% --schedule.length '300 steps' --data.source embedded"
    )


def test_records_of_unknown_experiments_are_named(write):
    def edit(content):
        content["experiment"] = "toy.table9.gone"

    assert "toy.table9.gone" in Parsed(rendered([write(PRUNED, edit=edit)])).words


def test_elements_escape_text_and_attributes():
    assert element("p", "a<b", title='"&') == '<p title="&quot;&amp;">a&lt;b</p>'
    assert element("p", Markup("<i>x</i>"), hidden=True, class_=None) == "<p hidden><i>x</i></p>"
    assert element("br") == "<br>"


def test_the_command_writes_one_file_and_says_what_next(tmp_path, write, capsys):
    write(PRUNED)
    out = tmp_path / "page.html"
    command.main(["toy", "--out", str(out), "--results", str(tmp_path / "runs")])
    printed = capsys.readouterr().out
    assert str(out) in printed
    assert "1 record" in printed
    assert "next:" in printed
    assert_sound(out.read_text(encoding="utf-8"))
    assert len(collect([tmp_path / "runs"])) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "runs"]


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(tmp_path, kind):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    out = tmp_path if kind == "folder" else tmp_path / "file" / "page.html"
    with pytest.raises(UserError, match="--out is") as error:
        command.main(["--out", str(out), "--results", str(tmp_path / "empty")])
    assert "\n" not in str(error.value)


def test_results_must_be_folders(tmp_path):
    with pytest.raises(UserError, match="--results is"):
        command.main(["--results", str(tmp_path / "absent")])


def test_sections_and_rows_with_records_come_first(write):
    text = rendered([write(PRUNED)])
    parsed = assert_sound(text)
    words = parsed.words
    # The row with a record is shown; the other one is on demand.
    assert words.index("Small, Pruned") < words.index("Without a record: 1 row")
    assert words.index("Without a record: 1 row") < words.index("Small, Trained")
    part = page.PaperPart("toy", select("toy"), [])
    drawn = Figure("drawn", "", section="second")
    part.figures = [Missing("none", (), "first"), drawn, Missing("none", (), "third")]
    assert [title for title, _ in part.figure_sections()] == ["second", "first", "third"]


def test_papers_with_records_come_first(write):
    text = page.render([write(PRUNED)], rendered=NOON)
    sections = re.findall(r'<section id="(\w+)" class="of-paper"', text)
    assert sections[0] == "toy"
    assert set(sections) == set(registry.papers())


def test_a_run_of_another_row_stands_alone_on_the_page(write):
    def edit(content):
        content["changed"] = ["pruning.keep"]
        content["config"]["pruning"]["keep"] = 0.5
        content["config_hash"] = "0123456789ab"

    parsed = Parsed(rendered([write(PRUNED), write(PRUNED, seed=1, edit=edit)]))
    names = [row[0] for row in parsed.rows if row and row[0].startswith("Small, Pruned")]
    assert "changed: pruning.keep=0.5" not in names[0]
    assert "changed: pruning.keep=0.5" in names[1]
    (alone,) = [row for row in parsed.rows if row and row[-1] == "△ other row" and "71" in row]
    assert alone == ["compression, x", "", "71", "", "△ other row"]
    assert "configuration" in parsed.words
    assert ", changed pruning.keep=0.5" in parsed.words


def test_the_text_below_a_mean_map_says_what_the_map_shows():
    low = np.full((8, 8), 2.0)
    low[4:] = 5.0
    text = mean_map_text(low)
    assert text.startswith("In the mean over the test set, in units per position: the upper half")
    assert "the upper half costs 2.00, the lower 5.00" in text
    assert "the left half costs 3.50, the right 3.50" in text
    left = mean_map_text(low.T)
    assert left.index("the left half costs 2.00, the right 5.00") < left.index("the upper half")
    centre = np.ones((8, 8))
    centre[1:7, 1:7] = 3.0
    assert "position: the central half costs 3.00, the rest 1.00" in mean_map_text(centre)
