"""FractalNet: sizes, the fractal rule against NumPy's recursion, columns under drop-path."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, pool, relu
from numpy_residual import batch_norm, images, random_variables
from scipy import stats
from tolerances import close

import adaptive_nets as an
from adaptive_nets.layers.drop_path import DropPathDraw
from adaptive_nets.models.fractalnet import FractalBlock, FractalNet
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
PLAIN: dict[str, Any] = {"use_bias": True, "affine": False}
THIN = (258_292, 847_716, 2_125_204, 4_778_820, 10_184_692, 21_095_076)


@pytest.mark.parametrize(
    ("classes", "affine", "plain", "macs"),
    [(10, 33_724_618, 33_714_314, 845_222_912), (100, 33_770_788, 33_760_484, 845_268_992)],
)
def test_published_sizes(classes, affine, plain, macs):
    name = f"fractalnet20_cifar{classes}"
    assert an.count_params(name) == affine
    assert an.count_params(name, **PLAIN) == plain
    assert an.count_macs(name) == macs


@pytest.mark.parametrize(
    "columns", [1, 2, 3, 4, *(pytest.param(c, marks=pytest.mark.slow) for c in (5, 6))]
)
def test_thin_networks(columns):
    widths = (16, 32, 64, 128, 128)
    params = an.count_params("fractalnet20_cifar100", columns=columns, widths=widths)
    assert params == THIN[columns - 1]


def test_forty_layers_of_half_the_width():
    params = an.count_params("fractalnet40_cifar100", widths=(32, 64, 128, 256, 256))
    assert params == 19_063_844


def oracle(x, variables, columns, *, pool_before_join=True, only=None):
    """The block by its recursion: sub-fractals side by side, their ends joined together."""
    done = dict.fromkeys(range(columns), 0)

    def unit(z, column):
        name = f"column{column}_{done[column]}"
        done[column] += 1
        layer = {kind: tree.get(name, {}) for kind, tree in variables.items()}
        z = conv(z, layer["params"]["conv"]["kernel"], pad=1)
        return relu(batch_norm(z, layer, "bn"))

    def ends(z, depth):
        """Outputs of the columns of f_depth, from the shallowest, before their last join."""
        column = columns - depth
        if depth == 1:
            return {column: unit(z, column)}
        mine = unit(z, column)
        inner = join(ends(z, depth - 1))
        return {column: mine, **ends(inner, depth - 1)}

    def join(outputs):
        if only is not None:
            return outputs[only] if only in outputs else next(iter(outputs.values()))
        return np.mean(list(outputs.values()), axis=0)

    outputs = ends(np.asarray(x, np.float64), columns)
    if pool_before_join:
        return join({column: pool(y, 2, 2) for column, y in outputs.items()})
    return pool(join(outputs), 2, 2)


@pytest.mark.parametrize("before", [True, False])
def test_block_of_four_columns(before):
    block, x = FractalBlock(3, 4, pool_before_join=before), images(2, 6, 5, 3)
    variables = random_variables(block, x)
    assert len(variables["params"]) == 2**4 - 1
    expected = oracle(x, variables, 4, pool_before_join=before)
    close(jax.jit(block.apply)(variables, x), expected, terms=1000)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_one_column_is_a_chain_of_the_whole_networks_variables(column):
    block = FractalBlock(3, 3, column=column)
    x = images(2, 6, 6, 3)
    variables = random_variables(FractalBlock(3, 3), x)
    own = random_variables(block, x)["params"]
    assert set(own) == {f"column{column}_{i}" for i in range(2**column)}
    close(jax.jit(block.apply)(variables, x), oracle(x, variables, 3, only=column), terms=1000)


def tiny(**options):
    return FractalNet(3, 4, widths=(3, 4), dropout_rates=(0.0, 0.0), **options)


def in_training(model, variables, x):
    """Logits as a function of the key of drop-path; every example normalised on its own batch."""

    def logits(key):
        return model.apply(
            variables, x, train=True, rngs={"drop_path": key}, mutable=["batch_stats"]
        )[0]

    return logits


@pytest.fixture(scope="module")
def network():
    x = images(3, 8, 8, 3)
    variables = random_variables(tiny(), x)
    columns = [
        jax.jit(in_training(tiny(column=c), variables, x))(jax.random.key(0)) for c in range(3)
    ]
    return variables, x, np.stack(columns)


def nearest(logits, columns):
    """Returns the index of the column that produced these logits."""
    distances = np.abs(logits[:, None] - columns[None]).max(axis=(-2, -1))
    assert np.all(distances.min(axis=1) < 1e-4)
    return distances.argmin(axis=1)


def test_global_drop_path_is_one_column_through_all_blocks(network):
    variables, x, columns = network
    run = in_training(tiny(global_share=1.0), variables, x)
    keys = jax.random.split(jax.random.key(2), 600)
    logits = np.asarray(jax.jit(lambda keys: jax.lax.map(run, keys))(keys))
    counts = np.bincount(nearest(logits, columns), minlength=3)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_examples_may_have_columns_of_their_own():
    """With running statistics examples do not mix, so each is its own column's chain."""
    block, x = FractalBlock(3, 3), images(5, 6, 4, 3)
    variables = random_variables(block, x)
    column = jnp.asarray([2, 0, 1, 1, 0])
    draw = DropPathDraw(jax.random.key(0), jnp.ones(5, bool), column, 0.15)
    output = jax.jit(lambda v, x, d: block.apply(v, x, False, d))(variables, x, draw)
    chains = [oracle(x, variables, 3, only=c) for c in range(3)]
    close(output, np.stack([chains[c][i] for i, c in enumerate(column)]), terms=1000)


def test_a_network_draws_for_every_example():
    model, x = tiny(per_example=True), images(7, 8, 8, 3)
    shapes = jax.make_jaxpr(
        lambda: model.init_with_output(
            {"params": jax.random.key(0), "drop_path": jax.random.key(1)}, x, train=True
        )[0]
    )()
    assert "bool[7,3]" in str(shapes)


def test_nothing_is_dropped_where_both_rates_are_zero(network):
    variables, x, _ = network
    model = tiny(global_share=0.0, local_drop_rate=0.0)
    logits = jax.jit(lambda: model.apply(variables, x, train=True, mutable=["batch_stats"])[0])()
    all_live = tiny(global_share=0.0, local_drop_rate=1e-9)
    close(jax.jit(in_training(all_live, variables, x))(jax.random.key(0)), logits, terms=100)


def test_local_drop_path_leaves_no_join_without_input(network):
    """Even where nearly all inputs are dropped the output is that of live convolutions."""
    variables, x, _ = network
    run = in_training(tiny(global_share=0.0, local_drop_rate=0.99), variables, x)
    keys = jax.random.split(jax.random.key(3), 100)
    logits = np.asarray(jax.jit(lambda keys: jax.lax.map(run, keys))(keys))
    bias = np.asarray(variables["params"]["fc"]["bias"])
    assert np.abs(logits - bias).max(axis=(1, 2)).min() > 0.01
    assert len(np.unique(logits[:, 0, 0].round(4))) > 3


def test_dropout_rates_of_the_blocks():
    model = an.create_model("fractalnet20_cifar10")
    assert model.dropout_rates == (0.0, 0.1, 0.2, 0.3, 0.4)
    with pytest.raises(UserError, match="expected one for each of the 2 blocks"):
        jax.eval_shape(
            lambda: FractalNet(2, widths=(2, 2)).init(jax.random.key(0), images(1, 4, 4, 3))
        )


def test_a_column_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="column is 3; expected 0 to 2"):
        jax.eval_shape(lambda: tiny(column=3).init(jax.random.key(0), images(1, 8, 8, 3)))
