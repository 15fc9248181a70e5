"""Neighbours and retrieval by cosine similarity, against loops over queries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adaptive_nets.ensembling.neighbours import (
    Neighbours,
    nearest_neighbours,
    neighbour_votes,
    retrieval_scores,
)

pytestmark = pytest.mark.core


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize(("count", "chunk"), [(1, 500), (4, 3), (30, 7)])
def test_neighbours_equal_a_loop(count, chunk, rng):
    queries, database = rng.normal(size=(13, 5)), 3 * rng.normal(size=(30, 5)) + 0.5
    found = nearest_neighbours(queries, database, count=count, chunk=chunk)
    for i, query in enumerate(queries):
        similarities = np.array([cosine(query, other) for other in database])
        expected = np.argsort(-similarities)[:count]
        np.testing.assert_array_equal(found.indices[i], expected)
        np.testing.assert_allclose(found.similarities[i], similarities[expected], atol=1e-6)


def test_the_length_of_an_embedding_has_no_effect(rng):
    queries, database = rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    scales = np.exp(rng.normal(size=(9, 1)))
    first = nearest_neighbours(queries, database, count=5)
    second = nearest_neighbours(7 * queries, scales * database, count=5)
    np.testing.assert_array_equal(first.indices, second.indices)


def test_equal_similarities_are_ordered_by_position():
    database = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    found = nearest_neighbours([[5.0, 0.0], [0.0, 0.0]], database, count=3)
    assert found.indices.tolist() == [[1, 2, 3], [0, 1, 2]]
    np.testing.assert_array_equal(found.similarities[1], 0)


@pytest.mark.parametrize("temperature", [0.07, 1.0, math.inf])
def test_votes_equal_a_loop(temperature, rng):
    neighbours = Neighbours(
        rng.integers(0, 20, (5, 4)), -np.sort(-rng.uniform(-1, 1, (5, 4))).astype(np.float32)
    )
    labels = rng.integers(0, 3, 20)
    votes = neighbour_votes(neighbours, labels, num_classes=3, temperature=temperature)
    for i in range(5):
        expected = np.zeros(3)
        for index, similarity in zip(*(part[i] for part in neighbours), strict=True):
            expected[labels[index]] += math.exp(float(similarity) / temperature)
        np.testing.assert_allclose(votes[i], expected / expected.sum(), rtol=1e-9)


def test_retrieval_equals_a_loop(rng):
    queries, database = rng.normal(size=(12, 3)), rng.normal(size=(25, 3))
    query_labels, labels = rng.integers(0, 4, 12), rng.integers(0, 3, 25)
    found = retrieval_scores(queries, database, query_labels, labels, chunk=5)
    precisions, hits = [], []
    for query, label in zip(queries, query_labels, strict=True):
        ranked = labels[np.argsort([-cosine(query, other) for other in database])]
        hits.append(ranked[0] == label)
        among = [np.mean(ranked[: i + 1] == label) for i in range(25) if ranked[i] == label]
        # No image of class 3 is in the database.
        if among:
            precisions.append(np.mean(among))
    assert (query_labels == 3).any()
    assert found.mean_average_precision == pytest.approx(np.mean(precisions), rel=1e-9)
    assert found.recall_at_1 == pytest.approx(np.mean(hits))


def test_retrieval_of_separate_classes_is_perfect_and_of_ties_is_the_share():
    database, labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), np.array([0, 1, 0])
    assert retrieval_scores(database, database, labels, labels) == (1.0, 1.0)
    same = np.ones((4, 2))
    found = retrieval_scores(same, same, np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]))
    assert found.mean_average_precision == pytest.approx((3 * 0.75 + 0.25) / 4)


def test_without_a_relevant_image_there_is_no_average_precision(rng):
    queries = rng.normal(size=(2, 3))
    found = retrieval_scores(queries, queries, np.array([0, 1]), np.array([2, 3]))
    assert math.isnan(found.mean_average_precision)
    assert found.recall_at_1 == 0


def test_bad_input_is_one_line(rng, complains):
    queries, database = rng.normal(size=(2, 3)), rng.normal(size=(4, 3))
    labels = np.arange(4)
    complains(lambda: nearest_neighbours(queries, database, count=5), "count is 5", "at most 4")
    complains(lambda: nearest_neighbours(queries, database, count=0), "count is 0")
    complains(lambda: nearest_neighbours(queries, database[:, :2], count=1), "expected 2")
    complains(lambda: nearest_neighbours(queries[0], database, count=1), "queries have shape (3,)")
    complains(lambda: nearest_neighbours(queries * np.nan, database, count=1), "queries hold NaN")
    complains(
        lambda: retrieval_scores(queries, database, labels, labels), "query_labels have shape (4,)"
    )
    found = nearest_neighbours(queries, database, count=2)
    complains(lambda: neighbour_votes(found, labels, num_classes=3), "labels hold 3")
    complains(
        lambda: neighbour_votes(found, labels, num_classes=4, temperature=0.0), "temperature is 0.0"
    )
