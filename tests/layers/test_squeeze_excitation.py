"""Squeeze-and-excitation against its formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_residual import images, random_variables, squeeze_excitation
from tolerances import close

from adaptive_nets.layers import SqueezeExcitation

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ({}, 2),
        ({"reduction": 4}, 8),
        ({"reduction": 64}, 1),
        ({"hidden": 5, "use_bias": False, "names": ("squeeze", "excite")}, 5),
    ],
)
def test_values_and_sizes(options, hidden):
    layer, x = SqueezeExcitation(**options), images(3, 5, 4, 32)
    variables = random_variables(layer, x)
    names = options.get("names", ("fc1", "fc2"))
    bias = options.get("use_bias", True)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {
        names[0]: {"kernel": (32, hidden)} | ({"bias": (hidden,)} if bias else {}),
        names[1]: {"kernel": (hidden, 32)} | ({"bias": (32,)} if bias else {}),
    }
    expected = squeeze_excitation(np.asarray(x, np.float64), variables["params"], names=names)
    close(jax.jit(layer.apply)(variables, x), expected, terms=60)


def test_every_image_and_channel_has_its_own_gate():
    layer, x = SqueezeExcitation(reduction=2), images(2, 3, 3, 8)
    variables = random_variables(layer, x)
    gates = np.asarray(jax.jit(layer.apply)(variables, x)) / np.asarray(x)
    assert np.ptp(gates, axis=(1, 2)).max() < 1e-5
    assert np.all((gates > 0) & (gates < 1))
    assert len(np.unique(gates.mean((1, 2)).round(5))) == 16
