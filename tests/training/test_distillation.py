"""Distillation: the loss of hinton2015 and its place in an objective."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from adaptive_nets.training.classification import classification
from adaptive_nets.training.distillation import distillation_loss, distilled
from adaptive_nets.training.duration import Timing

pytestmark = pytest.mark.core


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_its_definition(rng, temperature):
    ours, theirs = rng.normal(size=(2, 7, 5)) * 3
    p = softmax(theirs / temperature, axis=1)
    kl = np.sum(p * (np.log(p) - log_softmax(ours / temperature, axis=1)), axis=1)
    found = distillation_loss(jnp.asarray(ours), jnp.asarray(theirs), temperature=temperature)
    np.testing.assert_allclose(found, temperature**2 * kl, rtol=1e-4, atol=1e-6)
    assert float(distillation_loss(theirs, theirs, temperature=temperature).max()) < 1e-5


def test_equal_logits_in_half_precision_have_no_loss():
    logits = jnp.asarray([[60.0, -60.0, 0.0]], jnp.bfloat16)
    found = distillation_loss(logits, logits, temperature=1.0)
    assert found.dtype == jnp.float32
    assert float(found[0]) == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_cross_entropy_is_replaced(rng, share):
    logits, theirs = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    batch = {"image": theirs, "label": jnp.arange(6) % 4}
    timing = Timing.of("10 steps", batch_size=6, examples=60)
    plain = classification(label_smoothing=0.0)
    made = distilled(lambda timing: plain, lambda images: images, share=share, temperature=2.0)
    loss, metrics = made(timing)(logits, batch, {}, jnp.int32(0))
    cross, _ = plain(logits, batch, {}, jnp.int32(0))
    soft = jnp.mean(distillation_loss(logits, theirs, temperature=2.0))
    np.testing.assert_allclose(loss, (1 - share) * cross + share * soft, rtol=1e-5)
    np.testing.assert_allclose(metrics["distillation"].total / 6, soft, rtol=1e-5)
    # The trained network is no part of the gradient.
    gradient = jax.grad(lambda images: made(timing)(logits, {**batch, "image": images}, {}, 0)[0])
    assert not np.any(gradient(theirs))
