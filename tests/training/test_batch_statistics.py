"""Re-estimated statistics are the means over batches, whatever the momentum of each layer."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.models import create_model
from adaptive_nets.training.batch_statistics import reestimate_statistics

pytestmark = pytest.mark.core


class TwoMomenta(nn.Module):
    """Two normalisations of the same values, with momenta of their own."""

    @nn.compact
    def __call__(self, x, train=False):
        first = nn.BatchNorm(not train, momentum=0.9, name="first")(x)
        return first + nn.BatchNorm(not train, momentum=0.3, name="second")(x)


def test_statistics_are_the_means_over_the_batches(rng):
    batches = [jnp.asarray(rng.normal(2, 3, (n, 4, 5, 3)), jnp.float32) for n in (6, 6, 2)]
    model = TwoMomenta()
    variables = model.init(jax.random.key(0), batches[0])
    found = reestimate_statistics(model, variables, batches)["batch_stats"]
    means = np.mean([np.mean(b, (0, 1, 2)) for b in batches], axis=0)
    variances = np.mean([np.var(b, (0, 1, 2)) for b in batches], axis=0)
    for name in ("first", "second"):
        np.testing.assert_allclose(found[name]["mean"], means, rtol=1e-4)
        np.testing.assert_allclose(found[name]["var"], variances, rtol=1e-4)


def test_they_do_not_depend_on_the_earlier_statistics(rng):
    model = create_model("resnet20_cifar10")
    images = [jnp.asarray(rng.normal(size=(4, 32, 32, 3)), jnp.float32)]
    variables = jax.jit(model.init)(jax.random.key(0), images[0])
    other = {
        **variables,
        "batch_stats": jax.tree.map(lambda leaf: leaf + 5.0, variables["batch_stats"]),
    }
    found = reestimate_statistics(model, variables, images)
    again = reestimate_statistics(model, other, images)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        found["batch_stats"],
        again["batch_stats"],
    )
    assert found["params"] is variables["params"]


def test_a_network_without_statistics_is_unchanged(rng):
    model = create_model("lenet5_caffe")
    images = jnp.zeros((2, 28, 28, 1))
    variables = model.init(jax.random.key(0), images)
    assert reestimate_statistics(model, variables, [images]) == dict(variables)


def test_no_batches():
    variables = {"params": {}, "batch_stats": {"mean": jnp.zeros(3)}}
    with pytest.raises(ValueError, match="no batches"):
        reestimate_statistics(None, variables, [])
