"""Products with few weights, and pruned networks that use them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_nets as an
from adaptive_nets.layers.sparse_inference import sparse_apply, sparse_layers
from adaptive_nets.layers.sparse_product import sparse_kernel, sparse_product
from adaptive_nets.runtime.errors import UserError


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 5), st.integers(1, 17), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99)
)
def test_the_product_equals_the_dense_one(count, inputs, outputs, sparsity, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, inputs)).astype(np.float32)
    kept = rng.random((inputs, outputs)) >= sparsity
    matrix = np.where(kept, rng.normal(size=kept.shape), 0).astype(np.float32)
    kernel = sparse_kernel(matrix)
    assert kernel.most == kept.sum(axis=0).max(initial=0)
    assert int(jnp.sum(kernel.values != 0)) == np.count_nonzero(matrix)
    found = jax.jit(sparse_product)(x, kernel)
    np.testing.assert_allclose(found, x @ matrix, rtol=1e-5, atol=1e-6)


def test_a_matrix_without_weights_gives_zeros():
    kernel = sparse_kernel(np.zeros((4, 3), np.float32))
    assert kernel.most == 0
    np.testing.assert_array_equal(sparse_product(jnp.ones((2, 4)), kernel), np.zeros((2, 3)))


def test_gradients_reach_inputs_and_kept_weights(rng):
    matrix = np.where(rng.random((6, 4)) < 0.5, rng.normal(size=(6, 4)), 0).astype(np.float32)
    x = jnp.asarray(rng.normal(size=(3, 6)), jnp.float32)
    kernel = sparse_kernel(matrix)
    found = jax.grad(lambda x: jnp.sum(jnp.sin(sparse_product(x, kernel))))(x)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(x @ matrix)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_of_a_convolution_is_refused():
    with pytest.raises(UserError, match=r"shape \(3, 3, 1, 2\); expected a matrix"):
        sparse_kernel(np.zeros((3, 3, 1, 2), np.float32))


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet5_caffe"])
def test_a_pruned_network_gives_the_same_logits(name, key, rng):
    model = an.create_model(name)
    images = jnp.asarray(rng.normal(size=(5, 28, 28, 1)), jnp.float32)
    variables = jax.tree.map(np.asarray, model.init(key, images))

    def prune(path, leaf):
        few = path[-1].key == "kernel" and path[-2].key != "fc3"
        return np.where(rng.random(leaf.shape) < (0.03 if few else 1), leaf, 0).astype(leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(prune, variables)
    found = sparse_layers(variables["params"])
    assert "fc1" in found
    assert all(name.startswith("fc") for name in found), "convolutions run as they are"
    expected = model.apply(variables, images, train=False)
    np.testing.assert_allclose(
        sparse_apply(model, variables)(images), expected, rtol=1e-4, atol=1e-5
    )
    for share in (0, 1):
        outputs = sparse_apply(model, variables, largest_share=share)(images)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert sparse_layers(variables["params"], largest_share=0) == {}
