"""Networks with stochastic depth: sizes, survival of every unit, the rule at test."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_residual import images, random_variables
from scipy import stats
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.resnet import ResNet, UnitSettings
from adaptive_nets.models.resnet_cifar import CifarResNet
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("110_cifar10", 1_732_010),
        pytest.param("110_cifar100", 1_737_860, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(name, params):
    assert an.count_params(f"stochastic_depth_resnet{name}") == params
    assert an.count_params(f"stochastic_depth_resnet{name}", use_bias=False) == an.count_params(
        f"resnet{name}"
    )


@pytest.mark.slow
def test_sizes_of_the_others():
    assert an.count_params("stochastic_depth_resnet152_svhn") == 2_414_090
    assert an.count_params("stochastic_depth_resnet152") == an.count_params("resnet152")
    assert an.count_macs("stochastic_depth_resnet110_cifar10") == 252_887_680


def small(**options):
    return CifarResNet(
        (2, 2, 2), 5, widths=(2, 3, 4), shortcut="average", last_survival=0.5, **options
    )


@pytest.mark.parametrize("scan", [False, True])
def test_every_unit_survives_with_its_probability(scan):
    """Kept units update their running statistics; units are dropped independently."""
    model, x = small(scan_units=scan), images(2, 8, 8, 3)
    variables = random_variables(model, x)
    old = variables["batch_stats"]

    def kept(key):
        _, mutated = model.apply(
            variables, x, train=True, rngs={"drop_path": key}, mutable=["batch_stats"]
        )
        flags = []
        for stage in (1, 2, 3):
            for name in (f"layer{stage}_0", f"layer{stage}_rest" if scan else f"layer{stage}_1"):
                before, after = (
                    tree[name]["bn2"]["mean"] for tree in (old, mutated["batch_stats"])
                )
                moved = jnp.any(before != after)
                flags.append(moved)
        return jnp.stack(flags)

    draws = 1000
    keys = jax.random.split(jax.random.key(7), draws)
    flags = np.asarray(jax.jit(lambda keys: jax.lax.map(kept, keys))(keys))
    for unit, survival in enumerate(1 - np.arange(1, 7) / 6 * 0.5):
        assert stats.binomtest(int(flags[:, unit].sum()), draws, survival).pvalue > 1e-6
    expected = np.prod(1 - np.arange(1, 7) / 12)
    assert stats.binomtest(int(flags.all(axis=1).sum()), draws, expected).pvalue > 1e-6


def test_at_test_branches_are_scaled_by_their_probability():
    """Scale and shift of the last normalisation, times p, in a network that drops nothing."""
    model, x = small(), images(2, 8, 8, 3)
    variables = random_variables(model, x)
    plain = CifarResNet((2, 2, 2), 5, widths=(2, 3, 4), shortcut="average")
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    for unit in range(6):
        name = f"layer{unit // 2 + 1}_{unit % 2}"
        survival = 1 - (unit + 1) / 6 * 0.5
        params[name]["bn2"] = jax.tree.map(lambda leaf, p=survival: leaf * p, params[name]["bn2"])
    expected = jax.jit(plain.apply)({**variables, "params": params}, x)
    close(jax.jit(model.apply)(variables, x), expected, terms=100)


def test_imagenet_network_drops_too():
    model = ResNet(
        (1, 1), 5, UnitSettings(stride_position="1x1"), widths=(2, 3), last_survival=1e-6
    )
    x = images(2, 16, 16, 3)
    variables = random_variables(model, x)

    @jax.jit
    def step(key):
        return model.apply(
            variables, x, train=True, rngs={"drop_path": key}, mutable=["batch_stats"]
        )

    _, mutated = step(jax.random.key(0))
    last = mutated["batch_stats"]["layer2_0"]
    old = variables["batch_stats"]["layer2_0"]
    np.testing.assert_array_equal(last["bn3"]["mean"], old["bn3"]["mean"])
    # The projection is no part of the branch.
    assert np.any(last["downsample_1"]["mean"] != old["downsample_1"]["mean"])


def test_a_survival_that_is_no_probability_is_named():
    model = an.create_model("stochastic_depth_resnet110_cifar10", last_survival=0.0)
    with pytest.raises(UserError, match=r"survival of the last unit is 0\.0"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 8, 8, 3)))
