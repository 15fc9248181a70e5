"""Training comparisons of the zoo: measures, heads, distortions, and orderings from records."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import made_up, write_run

from adaptive_nets.data import Split
from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models import create_model
from adaptive_nets.models.char_lm import CharOutput, create_char_model
from adaptive_nets.runtime.errors import UserError
from experiments.__main__ import main
from experiments.papers.zoo import comparisons, measures, tables
from experiments.papers.zoo.configs import EXPERIMENTS
from experiments.papers.zoo.digits import distort, distortions, padded
from experiments.papers.zoo.fields import NinOptions
from experiments.papers.zoo.figures import figures
from experiments.papers.zoo.networks import DenseHead, last_layer, nin
from experiments.report.charts import Figure, Missing
from experiments.suite import config as config_lib
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import Record, read_record

BY_NAME = {comparison.name: comparison for comparison in comparisons.COMPARISONS}
CONSTANT = "zoo.stochastic-depth.constant-c10-plus"
STOCHASTIC = "zoo.stochastic-depth.stochastic-c10-plus"


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder without a data root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)

    def run(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# -- measures


class Uniform:
    """Model that predicts every character with the same probability."""

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def apply(self, variables, tokens, *, state, train):
        assert train is False
        return CharOutput(jnp.zeros((*tokens.shape, self.vocabulary)), jnp.zeros(()))


@pytest.mark.parametrize("vocabulary", [2, 50, 205])
def test_a_uniform_model_has_log2_of_the_vocabulary_bits(vocabulary):
    tokens = np.random.default_rng(0).integers(0, vocabulary, 101).astype(np.uint8)
    bits, count = measures.text_bits(Uniform(vocabulary), {}, tokens, lanes=3, length=8)
    assert bits == pytest.approx(math.log2(vocabulary), rel=1e-6)
    assert count == 99


def test_bits_of_a_text_carry_the_state_along_and_do_not_depend_on_the_steps():
    model = create_char_model("hyperlstm_1000_ptb", vocabulary=5, hidden=4, hyper_hidden=3)
    tokens = np.random.default_rng(0).integers(0, 5, 41).astype(np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    found = [
        measures.text_bits(model, variables, tokens, lanes=2, length=length)[0]
        for length in (7, 100)
    ]
    assert found == pytest.approx([found[0]] * 2, rel=1e-5)
    output = jax.jit(model.apply)(variables, jnp.asarray(tokens[:20], jnp.int32)[None])
    log_probs = np.asarray(jax.nn.log_softmax(output.logits[0]))
    first = -np.mean([log_probs[i, tokens[i + 1]] for i in range(20)]) / math.log(2)
    (alone, _) = measures.text_bits(model, variables, tokens[:21], lanes=1, length=6)
    assert alone == pytest.approx(float(first), rel=1e-5)


FRACTAL = {
    "columns": 3, "num_classes": 3, "widths": (2, 2, 3, 3, 3), "dropout_rates": (0.0,) * 5,
    "local_drop_rate": 0.15, "global_share": 0.5,
}  # fmt: skip


def test_columns_alone_are_evaluated_with_the_variables_of_the_whole_network():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 24).astype(np.int32)
    split = Split(images, labels)
    ones = jnp.ones((1, 1, 3))
    test = DeviceSplit(
        {name: jnp.asarray(array) for name, array in split.arrays.items()},
        0.5 * ones, ones, jnp.float32(255),
    )  # fmt: skip
    inputs = jnp.asarray(images, jnp.float32) / 255 - 0.5
    whole = create_model("fractalnet20_cifar10", **FRACTAL)
    variables = jax.jit(whole.init)(jax.random.key(1), inputs[:1])
    found = measures.column_errors("fractalnet20_cifar10", FRACTAL, variables, test, batch_size=16)
    for column in range(3):
        alone = create_model("fractalnet20_cifar10", **FRACTAL, column=column)
        wrong = np.argmax(jax.jit(alone.apply)(variables, inputs), axis=-1) != labels
        metric = found[f"error.column{column}"]
        assert metric.count == 24
        assert metric.value == pytest.approx(100 * float(np.mean(wrong)))
    assert found["deepest_error"] == found["error.column2"]


def test_the_generated_kernel_has_the_published_number_of_parameters():
    for name, count in (("hypernet_mnist", 4244), ("hypernet_mnist_baseline", 12544)):
        model = create_model(name)
        params = jax.eval_shape(
            lambda m=model: m.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        )
        assert measures.kernel_metric(params["params"])["kernel_params"].value == count


# -- networks and digits


def test_the_dense_head_reads_the_maps_that_are_averaged_otherwise():
    options = NinOptions(width=0.03125)
    trunk = nin("nin_cifar10", options, num_classes=4)
    head = nin("nin_cifar10", NinOptions(width=0.03125, head="dense"), num_classes=4)
    assert isinstance(head, DenseHead)
    assert last_layer(trunk) == "cccp6"
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = head.init(jax.random.key(1), x)
    assert variables["params"]["fc"]["kernel"].shape == (8 * 8 * 4, 4)
    # A dense layer that averages each map gives the logits of global average pooling.
    average = np.kron(np.ones((64, 1)), np.eye(4)) / 64
    params = {**variables["params"], "fc": {"kernel": average, "bias": np.zeros(4)}}
    expected = trunk.apply({"params": variables["params"]["trunk"]}, x)
    np.testing.assert_allclose(head.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


def test_padding_adds_background_and_distortions_move_digits():
    images = np.zeros((4, 28, 28, 1), np.float32)
    images[:, 10:18, 10:18] = 1.0
    batch = padded(2)({"image": jnp.asarray(images), "label": jnp.arange(4)})
    assert batch["image"].shape == (4, 32, 32, 1)
    assert float(batch["image"].sum()) == images.sum()
    rows = distort(jax.random.key(0), {"image": jnp.asarray(images), "label": jnp.arange(4)})
    moved = np.asarray(rows["image"])
    assert moved.shape == images.shape
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert len({part.tobytes() for part in moved}) == 4
    # The centre of an image moves by at most the largest shift.
    maps = np.asarray(distortions(jax.random.key(1), 100, 28))
    centre = maps @ np.array([14.0, 14.0, 1.0])
    assert np.abs(centre - 14).max() <= 2.001


# -- orderings from made-up records


def record(experiment, seed, **metrics):
    return Record(made_up(experiment, preset="quick", seed=seed, **metrics), None)  # pyright: ignore


def sides(first, second):
    return [
        *(record(CONSTANT, seed, error=value) for seed, value in enumerate(first)),
        *(record(STOCHASTIC, seed, error=value) for seed, value in enumerate(second)),
    ]


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        ((20.0, 21.0), (18.0, 19.2), "-1.90 ± 0.10 points, 2 seeds: the ordering shows."),
        ((18.0, 19.2), (20.0, 21.0), "+1.90 ± 0.10 points, 2 seeds: the ordering is reversed."),
        ((20.0, 21.0), (19.0, 21.5), "-0.25 ± 0.75 points, 2 seeds: the ordering is not decided."),
        ((20.0,), (18.0,), "-2.00 points, of one seed, so the ordering is not decided."),
    ],
)
def test_orderings_are_said_from_paired_differences(first, second, answer):
    found = tables.comparison_part(BY_NAME["stochastic-depth"], sides(first, second))
    assert f"stochastic depth below constant depth: {answer}" in found
    assert "| 6.41 |" in found
    assert "| 5.25 |" in found
    assert "reduced" in found
    assert "reproduced" not in found


def test_only_runs_of_equal_size_and_equal_seeds_are_compared():
    first, second = sides((20.0, 21.0), (18.0, 19.0))[::2]
    longer = Record({**second.content, "steps": 7}, second.path)
    found = tables.comparison_part(BY_NAME["stochastic-depth"], [first, longer])
    assert found.count("not run with equal seeds") == 2
    other = Record({**second.content, "seed": 5}, second.path)
    found = tables.comparison_part(BY_NAME["stochastic-depth"], [first, other])
    assert "not run with equal seeds" in found


def test_without_records_tables_say_so_and_figures_name_the_commands():
    for name, part in tables.PARTS.items():
        assert part([]) == tables.NOT_RUN, name
    drawn = figures([])
    assert all(isinstance(figure, Missing) for figure in drawn)
    assert len(drawn) == len(comparisons.COMPARISONS)
    changed = Record(
        {**sides((1.0,), ())[0].content, "changed": ["network.last_survival"]},
        None,  # pyright: ignore
    )
    assert tables.comparison_part(BY_NAME["stochastic-depth"], [changed]) == tables.NOT_RUN


def test_sides_and_claims_of_the_comparisons_exist():
    ids = {experiment.id: experiment for experiment in EXPERIMENTS}
    for comparison in comparisons.COMPARISONS:
        lengths = set()
        for number, side in enumerate(comparison.sides):
            quick = ids[f"zoo.{side.experiment}"].presets["quick"]
            values = config_lib.flat(config_lib.to_dict(quick.config))
            lengths.add(
                tuple(values.get(name) for name in (
                    "schedule.length", "data.batch_size",  "data.train_limit",
                    "data.crop_padding", "optimiser.learning_rate", "optimiser.nesterov",
                    "optimiser.weight_decay",
                ))
            )  # fmt: skip
            assert quick.seeds >= 2 or comparison.name in ("ptb", "enwik8")
            comparison.published(number)
        assert len(lengths) == 1, comparison.name
        for better, worse in comparison.claims:
            published = [comparison.published(side) for side in (better, worse)]
            if None not in published:
                assert published[0] < published[1], comparison.name


def test_figures_of_columns_and_curves_are_drawn_from_records(tmp_path):
    columns = {f"error.column{i}": Metric(60.0 - i, "%") for i in range(3)}
    metrics = {"error": Metric(50.0, "%"), "deepest_error": Metric(58.0, "%"), **columns}
    curves = {"test/error": [[100, 0.8], [200, 0.5]], "train/error": [[100, 0.7], [200, 0.4]]}
    records = [
        write_run(
            tmp_path, f"zoo.fractalnet.{name}-c10", Outcome(metrics, {}, 1.0, 200), curves,
            preset="quick", seed=seed,
        )
        for name in ("plain", "drop-path")
        for seed in (0, 1)
    ]  # fmt: skip
    drawn = [figure for figure in figures(records) if isinstance(figure, Figure)]
    assert [figure.title for figure in drawn] == ["Learning curves", "Columns of FractalNet"]
    assert len(drawn[1].data["rows"]) == 2 * 4 * 2
    table = tables.columns_table(records)
    assert "column 2 alone, 4 deep" in table
    assert "| 60.00 ± 0.00 | 59.00 ± 0.00 | 58.00 ± 0.00 | 50.00 ± 0.00 |" in table


def test_curves_of_character_models_are_drawn_over_steps(tmp_path):
    found = Metric(1000.0, "characters", 1, "python-topics, sha256 00")
    outcome = Outcome({"bits": Metric(2.0, "bits"), "characters": found}, {}, 1.0, 200)
    curves = {"test/bits": [[100, 3.0], [200, 2.0]], "train/bits": [[100, 3.1], [200, 2.2]]}
    run = write_run(tmp_path, "zoo.text.lstm", outcome, curves, preset="quick")
    (figure,) = [f for f in figures([run]) if isinstance(f, Figure)]
    assert figure.data["rows"][0] == ["LSTM, test", 100, 3, 3, 3]


# -- runs


@pytest.mark.slow
def test_smoke_of_a_character_model_on_the_text_of_python(call, tmp_path):
    code, _, err = call("run", "zoo.text.layernorm-lstm", "--preset", "smoke", "--out", "r")
    assert code == 0, err
    found = read_record(tmp_path / "r" / "seed0" / "record.json")
    assert 0 < found.metric("bits").value < 10
    assert found.metric("characters").value == 20_000
    assert found.metric("characters").note.startswith("python-topics, sha256 ")
    assert set(found.history) >= {"test/bits", "train/bits"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data.name", "enwik9"), "corpus 'enwik9' is unknown; did you mean 'enwik8'"),
        (("--data.name", "ptb"), "corpus 'ptb' is not in"),
        (("--data.vocabulary", "ascii"), "characters outside the vocabulary of 96"),
        (("--data.length", "30000"), "expected more than the length 30,000 of a sequence"),
        (("--network.name", "lstm_1000_pbt"), "did you mean 'lstm_1000_ptb'"),
        (("--network.hidden", "-1"), "--network.hidden is -1"),
    ],
)
def test_bad_input_of_character_models_gets_one_line(call, flags, message):
    code, _, err = call("run", "zoo.text.lstm", "--preset", "smoke", "--out", "r", *flags)
    assert code == 2
    line = [line for line in err.splitlines() if message in line]
    assert len(line) == 1, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("experiment", "flags", "message"),
    [
        ("zoo.mnist.lenet5", ("--images.padding", "1"), "LeNet-5 expects 32x32"),
        (
            "zoo.mnist.lenet5-distorted", ("--data.crop-padding", "2"),
            "--data.crop-padding is 2; expected 0, since the task has its own augmentation",
        ),
    ],
)  # fmt: skip
def test_bad_input_of_digits_gets_one_line(call, experiment, flags, message):
    code, _, err = call("run", experiment, "--preset", "smoke", "--out", "r", *flags)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_user_error_is_raised_for_a_column_that_does_not_exist():
    model = create_model("fractalnet20_cifar10", **FRACTAL, column=3)
    with pytest.raises(UserError, match="column is 3; expected 0 to 2"):
        model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("row", ["hypernet", "lenet5", "lenet5-distorted"])
def test_networks_of_digits_learn(call, tmp_path, row):
    flags = ("--data.source", "embedded", "--data.train-limit", "4000", "--data.test-limit", "1000")
    flags += ("--schedule.length", "150 steps", "--data.batch-size", "100")
    code, _, err = call("run", f"zoo.mnist.{row}", "--preset", "quick", "--seeds", "1",
                        "--out", "r", *flags)  # fmt: skip
    assert code == 0, err
    found = read_record(tmp_path / "r" / "seed0" / "record.json")
    assert found.metric("error").value < 25
