"""Files of a plain classifier with random weights, for tests that start from trained ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import adaptive_nets as an
from adaptive_nets.models.weights import InputNormalisation, save_network

OFFSET = InputNormalisation(
    255.0, np.full((1, 1, 3), 0.5, np.float32), np.full((1, 1, 3), 2, np.float32)
)


def classifier_files(folder):
    """Returns a function that saves a plain network as a file of `folder`, and the variables."""
    model = an.create_model("resnet20_cifar10")
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)

    def save(name, **options):
        save_network(
            folder / name,
            model=options.get("model", "resnet20_cifar10"),
            num_classes=10,
            variables=variables,
            normalisation=options.get("normalisation", OFFSET),
        )
        return folder / name

    return save, variables
