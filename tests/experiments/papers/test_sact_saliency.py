"""Saliency as an experiment: divisions, measures, a whole run, tables, mistakes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from records_for_tests import write_run

import adaptive_nets as an
from adaptive_nets.data.fixations import FixationExample, GeneratedFixations
from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.saliency import (
    auc_judd,
    centre_baseline,
    random_halves,
    resized,
    smoothed_map,
)
from experiments.papers.sact_saliency import experiment, tables
from experiments.papers.sact_saliency.fields import (
    CentreConfig,
    FixationsConfig,
    HalvesConfig,
    NetworkConfig,
    PicturesConfig,
    SaliencyConfig,
    SmoothingConfig,
)
from experiments.papers.sact_saliency.figures import figures, maps_picture
from experiments.papers.sact_saliency.measures import HumanMaps, counted, divide
from experiments.report.charts import Figure, Missing
from experiments.report.heat_maps import coloured, levels, overlaid
from experiments.shared.adaptive_depth.ponder_maps import (
    PonderNetwork,
    PonderResult,
    ponder_maps,
)
from experiments.suite.execution import execute
from experiments.suite.registry import find_experiment

SMOOTHING = SmoothingConfig(sigmas=(0.0, 0.05), centre_weights=(0.5, 0.0, 2.0))
CONFIG = SaliencyConfig(
    fixations=FixationsConfig(name="generated", limit=6, others=3),
    smoothing=SMOOTHING,
    halves=HalvesConfig(repeats=3),
    network=NetworkConfig(source="random", name="resnetv1_20_sact_cifar10"),
    pictures=PicturesConfig(longer_side=32, multiple=4, batch_size=4),
)
PICTURES = GeneratedFixations(6)


@dataclasses.dataclass(frozen=True)
class BrightnessNetwork(PonderNetwork):
    """Stands for a network that spends more where the picture is bright."""

    def run(self, pixels):
        return PonderResult(
            pixels.mean(axis=-1).astype(np.float32), np.full(len(pixels), 1000, np.int64)
        )

    def plain_flops(self, size):
        return 4000


def bright(channels: int = 3) -> BrightnessNetwork:
    normalisation = InputNormalisation(255.0, np.zeros((1, 1, 3)), np.ones((1, 1, 3)))
    return BrightnessNetwork("bright", None, {"w": np.ones(1)}, normalisation, channels, 4)  # type: ignore[arg-type]


def run(config, directory, *, seed=0, data=None):
    return experiment.run(
        config, dataset=data or config.read_data(root=None), directory=directory, seed=seed,
        progress=SilentProgress(), title="t",
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A whole run, with the network that follows brightness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "find_network", lambda config, *, seed: bright())
        return run(CONFIG, tmp_path_factory.mktemp("seed0"))


def test_the_reported_scores_are_those_of_the_other_half(outcome):
    """Everything again, from pictures to means, in the order of the definition."""
    from adaptive_nets.data.pictures import resize_picture

    scores, centre = np.zeros((6, 2, 3)), np.zeros(6)
    for i in range(6):
        example = PICTURES.read(i)
        ponder = resize_picture(example.image, (24, 32)).mean(axis=-1)
        centre[i] = auc_judd(centre_baseline((48, 64)), example.points)
        for j, sigma in enumerate(SMOOTHING.sigmas):
            for k, weight in enumerate(SMOOTHING.centre_weights):
                saliency = smoothed_map(ponder, sigma=32 * sigma, centre_weight=weight)
                scores[i, j, k] = auc_judd(resized(saliency, (48, 64)), example.points)
    expected = {"centre": [], "ponder": [], "both": []}
    for half in random_halves(6, repeats=3):
        means = scores[half].mean(axis=0)
        j, k = np.unravel_index(means.argmax(), means.shape)
        alone = int(means[:, 1].argmax())
        expected["centre"].append(100 * centre[~half].mean())
        expected["ponder"].append(100 * scores[~half, alone, 1].mean())
        expected["both"].append(100 * scores[~half, j, k].mean())
    metrics = outcome.metrics
    for method, values in expected.items():
        assert metrics[f"auc_judd.{method}"].value == pytest.approx(np.mean(values), abs=0.02)
        assert metrics[f"auc_judd_std.{method}"].value == pytest.approx(
            np.std(values, ddof=1), abs=0.02
        )
    gains = np.subtract(expected["both"], expected["centre"])
    assert metrics["gain.both"].value == pytest.approx(gains.mean(), abs=0.02)
    assert metrics["better.both"].value == np.sum(gains > 0)
    assert metrics["auc_judd"].value == metrics["auc_judd.both"].value
    assert metrics["share"].value == 25
    assert metrics["derived"].value == 0
    assert {f"{name}.{m}" for name in ("nss", "cc", "sim", "kl", "auc_shuffled")
            for m in ("centre", "ponder", "both")} <= set(metrics)  # fmt: skip
    # The discs are bright, and they are fixated.
    assert metrics["auc_judd.both"].value > metrics["auc_judd.centre"].value
    assert outcome.arrays["pictures"].shape == (6, 24, 32, 3)
    assert outcome.arrays["auc/grid"].shape == (2, 3)


def test_a_run_repeats_itself_and_seeds_differ(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "find_network", lambda config, *, seed: bright())
    again = run(CONFIG, tmp_path)
    assert again.metrics == outcome.metrics
    # From what is kept in the folder, without the network.
    monkeypatch.setattr(BrightnessNetwork, "run", None)
    (tmp_path / "scores00000.npz").unlink()
    assert run(CONFIG, tmp_path).metrics == outcome.metrics
    assert run(CONFIG, tmp_path).metrics == outcome.metrics
    with pytest.raises(UserError, match="another seed"):
        run(CONFIG, tmp_path, seed=1)
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "find_network", lambda config, *, seed: bright())
    (tmp_path / "other").mkdir()
    other = run(CONFIG, tmp_path / "other", seed=1)
    assert other.metrics["auc_judd.centre"] != outcome.metrics["auc_judd.centre"]


def test_the_centre_needs_no_network(tmp_path):
    config = CentreConfig(CONFIG.fixations, halves=HalvesConfig(rule="first"))
    metrics = run(config, tmp_path).metrics
    assert metrics["auc_judd"] == metrics["auc_judd.centre"]
    assert not any(name.startswith(("gain", "flops", "sigma")) for name in metrics)
    assert metrics["auc_judd"].count == 4  # Of three pictures of a category one selects.


def test_divisions_select_on_the_half_that_does_not_report():
    grid = np.full((4, 2, 3), 0.5)
    grid[:2, 1, 2], grid[2:, 1, 2] = 0.9, 0.7
    grid[:, 0, 1] = 0.6
    halves = np.array([[True, True, False, False]])
    (division,) = divide(halves, np.full(4, 0.55), grid, SMOOTHING)
    assert division.reporting.tolist() == [2, 3]
    assert division.both is not None
    assert division.ponder is not None
    assert (division.both.sigma, division.both.centre_weight) == (1, 2)
    assert division.both.scores.tolist() == [0.7, 0.7]
    assert division.ponder.sigma == 0
    assert division.scores("ponder") == pytest.approx([0.6, 0.6])
    assert division.scores("centre") == pytest.approx([0.55, 0.55])


def test_fixations_move_to_pictures_of_other_sizes():
    points = np.zeros((4, 6), bool)
    points[1, 2] = points[3, 5] = True
    human = HumanMaps(points, points * 1.0, derived=False)
    assert np.argwhere(counted(human.places(), (4, 6))).tolist() == [[1, 2], [3, 5]]
    larger = counted(np.concatenate([human.places()] * 2), (8, 12))
    assert np.argwhere(larger).tolist() == [[3, 5], [7, 11]]
    assert larger.max() == 2
    assert counted(human.places(), (1, 1)).tolist() == [[2]]


def test_each_form_of_fixations_is_derived_from_the_other():
    example = PICTURES.read(0)
    config = FixationsConfig(count=30)
    blurred = FixationExample("a", example.image, None, example.density)
    drawn = HumanMaps.of(blurred, config, seed=1)
    assert drawn.derived
    assert drawn.points.sum() == 30
    pointed = HumanMaps.of(
        FixationExample("a", example.image, example.points, None), config, seed=1
    )
    assert not pointed.derived
    assert pointed.density.sum() == pytest.approx(1)
    assert (
        HumanMaps.of(blurred, FixationsConfig(rule="top", share=0.5), seed=1).points.sum() == 1536
    )


def test_tables_figures_and_pictures(outcome, tmp_path):
    assert tables.answer([]) == tables.methods_table([]) == tables.picture([])
    assert "Not measured" in tables.answer([])
    assert maps_picture([]) == ""
    assert isinstance(figures([])[0], Missing)
    record = write_run(
        tmp_path, "sact.saliency.mit1003", outcome, {}, preset="quick", complete=False
    )
    record.content["config"]["smoothing"].update(sigmas=[0.0, 0.05], centre_weights=[0.5, 0.0, 2.0])
    (line,) = tables.answer([record]).splitlines()
    assert "better than the centre alone: **" in line
    assert "over 3 divisions" in line
    rows = tables.methods_table([record]).splitlines()
    assert [row.split(" | ")[1] for row in rows[2:]] == [
        "centre baseline", "ponder map alone", "ponder map with centre",
    ]  # fmt: skip
    value = outcome.metrics["auc_judd.both"].value
    assert f"| {value:.1f} ± " in rows[-1]
    assert tables.picture([record]).startswith("![Photographs")
    drawn = figures([record])
    assert all(isinstance(figure, Figure) and figure.section for figure in drawn)
    assert "data:image/png;base64" in maps_picture([record])


def test_batches_of_one_size_keep_the_order_of_the_pictures(rng):
    sizes = [(8, 8), (8, 12), (8, 8), (8, 8), (8, 12)]
    pictures = [np.full((*size, 3), i, np.uint8) for i, size in enumerate(sizes)]
    ticks: list[int] = []
    maps, flops = ponder_maps(bright(), pictures, batch_size=2, tick=ticks.append)
    for i, size in enumerate(sizes):
        np.testing.assert_array_equal(maps[i], np.full(size, i))
    assert flops.tolist() == [1000] * 5
    assert ticks == [2, 3, 5]


def test_maps_are_drawn_over_photographs(rng):
    picture = rng.integers(0, 256, (4, 5, 3), np.uint8)
    values = np.linspace(2, 7, 20).reshape(4, 5)
    scaled = levels(values)
    np.testing.assert_allclose(scaled, (values - 2) / 5)
    np.testing.assert_allclose(levels(values, 0, 14), values / 14)
    assert levels(np.ones((2, 2))).tolist() == [[0, 0], [0, 0]]
    mixed = overlaid(picture, scaled)
    expected = 0.6 * coloured(scaled) + 0.4 * picture.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(mixed, expected, atol=0.5)


def small_set(root, rng, size=(16, 24)):
    for folder in ("images", "fixation_maps"):
        (root / "mit1003_small" / folder).mkdir(parents=True)
    for i in range(3):
        for folder in ("images", "fixation_maps"):
            pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "mit1003_small" / folder / f"{i}.jpg")


def test_a_set_of_the_data_root_is_measured_by_the_command(rng, tmp_path):
    """From --data-dir to the record, without a network."""
    small_set(tmp_path / "data", rng)
    config = CentreConfig(FixationsConfig(name="mit1003", others=1), halves=HalvesConfig(repeats=2))
    lines: list[str] = []
    (record,) = execute(
        find_experiment("sact.saliency.cat2000-centre"), preset="quick", config=config, seeds=1,
        out=tmp_path / "out", data_dir=tmp_path / "data", progress=SilentProgress(),
        announce=lines.append,
    )  # fmt: skip
    assert record.dataset["train"] == 3
    assert not record.dataset["complete"]
    assert "data: mit1003 from" in lines[0]
    assert record.metric("derived").value == 100
    assert record.metric("auc_judd.centre").value > 0


def save(path, name, shape, channels):
    model = an.create_model(name)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, *shape))))
    one = np.ones((1, 1, channels), np.float32)
    save_network(
        path, model=name, num_classes=10, variables=jax.device_get(init(jax.random.key(0))),
        normalisation=InputNormalisation(255.0, 0 * one, one), note={"data": "mnist"},
    )  # fmt: skip
    return path


def test_mistakes_are_one_line(rng, tmp_path, complains, monkeypatch):
    def changed(**groups):
        return dataclasses.replace(CONFIG, **groups)

    def source(path):
        return changed(network=NetworkConfig(source=str(path)))

    plain = save(tmp_path / "network.safetensors", "lenet_300_100", (28, 28, 1), 1)
    cases = {
        "--network.source is ''": source(""),
        "which does not exist": source(tmp_path / "nowhere"),
        "has the network 'lenet_300_100', which has no ponder map": source(plain),
        "random weights has the network": changed(
            network=NetworkConfig(source="random", name="lenet_300_100")
        ),
        "leaves 1 picture": changed(fixations=FixationsConfig(name="generated", limit=1)),
    }
    for message, config in cases.items():
        complains(lambda c=config: run(c, tmp_path), message)
    monkeypatch.setattr(experiment, "find_network", lambda config, *, seed: bright())
    tiny = changed(pictures=PicturesConfig(longer_side=3, multiple=1))
    complains(lambda: run(tiny, tmp_path), "picture 000 at --pictures.longer-side is 3x2 pixels")
    complains(
        lambda: SmoothingConfig(centre_weights=(1.0,)), "--smoothing.centre-weights", "0 among"
    )
    absent = changed(fixations=FixationsConfig(name="cat2000"))
    complains(lambda: absent.read_data(root=tmp_path), "'cat2000' is not in", tmp_path)
    (tmp_path / "mit1003_small").mkdir()
    with pytest.raises(UserError):
        changed(fixations=FixationsConfig(name="mit1003")).read_data(root=tmp_path)


@pytest.mark.slow
def test_an_untrained_network_runs_whole(tmp_path):
    """Ponder maps of the real network, as `BrightnessNetwork` replaces them above."""
    metrics = run(CONFIG, tmp_path).metrics
    assert metrics["ponder"].value > 3
    assert 0 < metrics["share"].value < 110
