"""Similarities of saliency maps: definitions in plain NumPy, closed forms, mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_nets.saliency import cc, kl, nss, sim


@pytest.fixture
def maps(rng):
    return rng.uniform(size=(9, 14)), rng.uniform(size=(9, 14)), rng.uniform(size=(9, 14)) < 0.1


def test_definitions(maps):
    first, second, fixated = maps
    p, q = first / first.sum(), second / second.sum()
    expected = np.mean((first[fixated] - first.mean()) / first.std())
    assert nss(first, fixated) == pytest.approx(expected)
    assert cc(first, second) == pytest.approx(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    assert sim(first, second) == pytest.approx(sum(map(min, p.ravel(), q.ravel())))
    assert kl(first, second) == pytest.approx(float(np.sum(q * np.log(q / p))), abs=1e-10)


def test_closed_forms(maps):
    first, _, fixated = maps
    assert cc(first, 3 * first - 1) == pytest.approx(1)
    assert cc(first, -first) == pytest.approx(-1)
    assert sim(first, 7 * first) == pytest.approx(1)
    assert kl(first, 7 * first) == pytest.approx(0, abs=1e-12)
    left, right = np.zeros((4, 6)), np.zeros((4, 6))
    left[:, :3], right[:, 3:] = 1, 2
    assert sim(left, right) == 0
    assert kl(left, right) > 30
    # Uniform on a half, of everything: log 2.
    assert kl(np.ones((4, 6)), left) == pytest.approx(np.log(2))
    assert nss(1.0 * left, left.astype(bool)) == pytest.approx(1)
    assert nss(-first, fixated) == pytest.approx(-nss(first, fixated))


def test_constant_maps_are_chance(maps):
    first, _, fixated = maps
    constant = np.full(first.shape, 0.1)
    assert nss(constant, fixated) == 0
    assert cc(constant, first) == 0
    assert cc(first, constant) == 0
    assert sim(constant, constant) == pytest.approx(1)


def test_large_and_small_numbers(maps):
    first, second, _ = maps
    for measure in (cc, sim, kl):
        expected = measure(first, second)
        for scale in (1e-300, 1e150):
            assert measure(scale * first, second) == pytest.approx(expected, abs=1e-9)


def test_mistakes_are_one_line(maps, complains):
    first, second, fixated = maps
    for measure in (cc, sim, kl):
        complains(lambda m=measure: m(first, second[:3]), "density has shape (3, 14)", "(9, 14)")
        complains(lambda m=measure: m(first, second + np.inf), "density holds inf")
    for measure in (sim, kl):
        complains(lambda m=measure: m(first - 0.5, second), "saliency holds -", "at least 0")
        complains(lambda m=measure: m(first, 0 * second), "density is 0 everywhere")
    complains(lambda: nss(first, fixated[:, :3]), "fixations have shape (9, 3)")
    complains(lambda: nss(first, fixated & False), "at least one fixated pixel")
