"""Predictions in pieces of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.ensembling import pieces


def rows(images):
    """Returns numbers that name an image and its pixels."""
    return jnp.stack([images[:, 0, 0, 0], images.sum((1, 2, 3))], axis=1)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 7, 48, 49, 97, 100])
@pytest.mark.parametrize("side", [32, 1, 300])
def test_pieces_give_what_the_whole_batch_gives(count, side):
    images = jnp.broadcast_to(
        jnp.arange(count, dtype=jnp.float32)[:, None, None, None], (count, side, 2, 3)
    )
    found = jax.jit(lambda x: pieces.in_pieces(rows, x))(images)
    np.testing.assert_array_equal(found, rows(images))


def test_a_large_batch_is_never_treated_whole():
    seen = []

    def note(images):
        seen.append(len(images))
        return rows(images)

    pieces.in_pieces(note, jnp.zeros((500, 32, 32, 3)))
    pieces.in_pieces(note, jnp.zeros((9, 224, 224, 3)))
    assert set(seen) == {46, 3}


def test_an_accelerator_takes_the_whole_batch(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    seen = []
    pieces.in_pieces(lambda x: seen.append(len(x)) or rows(x), jnp.zeros((500, 32, 32, 3)))
    assert seen == [500]
