"""Panels, axes and pictures of the report."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from parsed_page import Parsed
from PIL import Image

from experiments.report import axes, pictures
from experiments.report.charts import COLOURS, Figure, panel, with_background
from experiments.suite import registry
from experiments.suite.records import PUBLISHED, collect

pytestmark = pytest.mark.usefixtures("toy_paper")


def test_panels_take_the_colours_and_the_font_of_the_page():
    with panel("Loss & error", size=(200, 100)) as drawn:
        drawn.axes.plot([0, 1], [0, 1], color=COLOURS["dense"][0])
    assert "var(--chart-dense, #0068a8)" in drawn.svg
    assert 'aria-label="Loss &amp; error"' in drawn.svg
    assert "DejaVu" not in drawn.svg
    assert Parsed(drawn.svg).wrong == []


def test_points_of_a_chart_have_values_that_documents_leave_out():
    with panel("Error & loss", size=(200, 100)) as drawn:
        drawn.axes.plot([0, 1, 2], [0.5, 0.25, np.nan], label="dense <1>")
        drawn.axes.plot(range(500), np.linspace(0, 1, 500), label="long")
        drawn.axes.scatter([1.5], [0.125], label="_points")
        drawn.axes.axhline(0.75)
        drawn.axes.bar([0, 1], [0.5, 1.0])
    titles = re.findall(r"<title>(.*?)</title></circle>", drawn.svg)
    assert "dense &lt;1&gt;: 1, 0.25" in titles
    assert "1.5, 0.125" in titles
    assert "long: 499, 1" in titles
    assert 10 <= sum(title.startswith("long") for title in titles) <= 26
    assert not any("nan" in title for title in titles)
    assert not {"0, 0.75", "1, 0.75"} & set(titles)  # a line across the axes has no points
    assert Parsed(drawn.svg).wrong == []
    assert "<circle" not in with_background(drawn.svg)
    # Positions are those of the drawn markers: the chart's y axis points up, SVG's down.
    place = r'cx="([\d.]+)" cy="([\d.]+)" r="5"><title>dense &lt;1&gt;: '
    first = re.search(f"{place}0, 0.5", drawn.svg)
    second = re.search(f"{place}1, 0.25", drawn.svg)
    assert float(first[1]) < float(second[1])
    assert float(first[2]) < float(second[2])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "10⁻⁵"), (2e-5, "2·10⁻⁵"), (0.001, "0.001"), (20, "20"), (5000, "5,000"), (2e4, "20k")],
)
def test_ticks_are_plain_numbers(value, text):
    assert axes.plain_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(99.9996, "99.9996"), (99.2, "99.2"), (100.0, "100"), (0.0, "0")]
)
def test_shares_are_never_rounded_up_to_all(value, text):
    assert axes.percentage(value) == text


@pytest.mark.parametrize("limits", [(1e-6, 1.0), (1.6, 3.4), (7.4, 9.0), (2.0, 2.0)])
def test_logarithmic_axes_have_a_few_ticks(limits):
    with panel("x") as drawn:
        axes.log_axis(drawn.axes, *limits)
        low, high = drawn.axes.get_ylim()
        assert low < limits[0] <= limits[1] < high
        assert 2 <= len(drawn.axes.get_yticks()) <= 7


@pytest.mark.parametrize("sparsities", [[0.0, 50.0], [90.0, 99.99], [100.0], [20.0, 100.0]])
def test_sparsity_axes_hold_everything_up_to_all(sparsities):
    with panel("x") as drawn:
        full = axes.sparsity_axis(drawn.axes, sparsities)
        low, high = drawn.axes.get_ylim()
        for sparsity in sparsities:
            assert low <= min(axes.nines(sparsity), full) <= high
        labels = [t.get_text() for t in drawn.axes.get_yticklabels()]
    assert ("100" in labels) == (100.0 in sparsities)
    assert axes.nines(99.9) - axes.nines(99.0) == pytest.approx(1.0)


def test_pictures_are_centred_at_zero_and_survive_empty_networks():
    weights = np.zeros((6, 3, 3), np.float16)
    empty = pictures.weight_grid("none", weights, what="units")
    assert "6 of the 6" in empty.note
    assert (empty.width, empty.height) == (11, 7)
    weights[0, 0, 0] = -2
    assert pictures.weight_grid("one", weights, what="units").ends == ("−2", "0", "+2")
    kept = pictures.pixel_map("map", np.array([[0, 3], [1, 0]]))
    assert kept.note == "2 of 4 pixels keep no weight, the busiest keeps 3."


@pytest.fixture
def drawn_wrong(monkeypatch):
    """Collects texts that leave their panel, and legends on a title, of all that a test draws."""
    wrong: list[str] = []
    texts: list[Text] = []
    draw, save = RendererSVG.draw_text, Canvas.savefig

    def draw_text(self, *args, mtext=None, **options):
        texts.append(mtext)
        draw(self, *args, mtext=mtext, **options)

    def savefig(self, *args, **options):
        texts.clear()
        save(self, *args, **options)
        frame = self.bbox
        for text in texts:
            box = text.get_window_extent()
            inside = min(box.x0, box.y0, frame.width - box.x1, frame.height - box.y1)
            if inside < -1:
                wrong.append(f"{text.get_text()!r} leaves its panel by {-inside:.0f} pixels")
        title = self.texts[0].get_window_extent()
        legends = [axes_.get_legend() for axes_ in self.axes]
        if any(legend and legend.get_window_extent().overlaps(title) for legend in legends):
            wrong.append(f"the legend covers {self.texts[0].get_text()!r}")

    monkeypatch.setattr(RendererSVG, "draw_text", draw_text)
    monkeypatch.setattr(Canvas, "savefig", savefig)
    return wrong


@pytest.mark.parametrize("width", [220, 300, 400])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_a_legend_fits_between_title_and_axes(width, count, drawn_wrong):
    with panel("A title of the usual length, %", size=(width, 200)) as drawn:
        for i in range(count):
            drawn.axes.plot([0, 1], [i, 1], label=f"a method, tau {i}.005")
        height = drawn.axes.get_window_extent().height
        axes.legend_above(drawn.axes)
        legend = drawn.axes.get_legend()
    assert drawn_wrong == []
    assert legend is not None
    assert len(legend.get_texts()) == count
    # The panel grows, the axes do not shrink.
    assert drawn.axes.get_window_extent().height == pytest.approx(height)
    assert legend.get_window_extent().y0 >= drawn.axes.get_window_extent().y1 - 3


def test_an_axes_without_labels_has_no_legend(drawn_wrong):
    with panel("A title") as drawn:
        drawn.axes.plot([0, 1], [0, 1])
        axes.legend_above(drawn.axes)
    assert drawn.axes.get_legend() is None
    assert drawn_wrong == []


@pytest.fixture(scope="module")
def published():
    """One record of each experiment."""
    return list({record.experiment: record for record in collect([PUBLISHED])}.values())


@pytest.mark.parametrize("name", sorted(registry.papers()))
def test_nothing_leaves_the_panels_of_published_records(name, published, drawn_wrong):
    module = registry.papers()[name].load("figures")
    drawn = any(isinstance(figure, Figure) for figure in module.figures(published))
    assert drawn or not any(record.paper == name for record in published)
    assert drawn_wrong == []


def test_photographs_keep_their_colours_and_have_no_scale(rng):
    images = rng.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    picture = pictures.photo_grid("Images", images)
    assert picture.scale == ""
    stored = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))
    found = np.asarray(stored.convert("RGB"))
    assert found.shape == (picture.height, picture.width, 3)
    np.testing.assert_array_equal(found[:32, :32], images[0])
    np.testing.assert_array_equal(found[33:65, 33:65], images[4])
    grey = pictures.photo_grid("Images", images[..., :1])
    stored = Image.open(io.BytesIO(base64.b64decode(grey.uri.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(stored)[:32, :32], images[0][..., [0, 0, 0]])
