"""Network in network: the initial state of its last layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import initializers

from adaptive_nets import create_model


@pytest.fixture(scope="module")
def images():
    """Eight images of noise with their own means, as after centring."""
    keys = jax.random.split(jax.random.key(0), 2)
    noise = jax.random.normal(keys[0], (8, 32, 32, 3))
    return noise + jax.random.normal(keys[1], (8, 1, 1, 3))


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_every_class_is_active_at_first_and_learns(images, seed):
    network = create_model(
        "nin_cifar10", dropout_rate=0.0, kernel_init=initializers.he_normal(), active_outputs=True
    )
    params = jax.jit(network.init)(jax.random.key(seed), images[:1])["params"]

    def loss(params):
        return -jnp.mean(jax.nn.log_softmax(network.apply({"params": params}, images))[:, 0])

    gradient = np.asarray(jax.jit(jax.grad(loss))(params)["cccp6"]["bias"])
    assert np.all(np.abs(gradient) > 1e-3)


def test_only_the_last_layer_starts_otherwise(images):
    shapes = [
        jax.jit(create_model("nin_cifar10", active_outputs=active).init)(
            jax.random.key(3), images[:1]
        )["params"]
        for active in (False, True)
    ]
    plain, active = shapes
    np.testing.assert_allclose(active["cccp6"]["kernel"], 0.1 * plain["cccp6"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(active["cccp6"]["bias"], np.ones(10))
    for name in set(plain) - {"cccp6"}:
        jax.tree.map(np.testing.assert_array_equal, plain[name], active[name])
