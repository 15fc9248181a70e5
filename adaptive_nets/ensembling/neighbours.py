"""Nearest neighbours and retrieval by cosine similarity, in chunks that bound the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from adaptive_nets.ensembling.arguments import as_labels
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError

# Queries whose similarities to the whole database are in memory at a time.
_CHUNK = 500


class Neighbours(NamedTuple):
    """Nearest neighbours of queries, nearest first.

    Attributes:
        indices: int64[N, k], positions in the database.
        similarities: float32[N, k], cosine similarities.
    """

    indices: Int[np.ndarray, "N k"]
    similarities: Float[np.ndarray, "N k"]


class Retrieval(NamedTuple):
    """Quality of rankings of a database.

    Attributes:
        mean_average_precision: mean over the queries whose class is in the database; NaN if there
            is none.
        recall_at_1: fraction of queries whose nearest neighbour is of their class.
    """

    mean_average_precision: float
    recall_at_1: float


def nearest_neighbours(
    queries: Float[Any, "N D"], database: Float[Any, "M D"], *, count: int, chunk: int = _CHUNK
) -> Neighbours:
    """Finds the nearest neighbours of every query by cosine similarity.

    Equal similarities are ordered by position. Embeddings of length 0 have similarity 0.

    Args:
        queries: float[N, D].
        database: float[M, D].
        count: number of neighbours k, at most M.
        chunk: queries at a time; the memory is that of chunk·M similarities.

    Raises:
        UserError: embeddings of other sizes, or more neighbours than the database has.
    """
    count = as_integer("count", count)
    if count > len(database):
        raise UserError(
            f"count is {count}; expected at most {len(database)}, the size of the database"
        )
    found = []
    for _, similarities in _similarities(queries, database, chunk):
        # Every neighbour that ties with the last one is a candidate, so that positions decide.
        last = -np.partition(-similarities, count - 1, axis=1)[:, count - 1]
        indices = np.empty((len(similarities), count), np.int64)
        for i, row in enumerate(similarities):
            candidates = np.flatnonzero(row >= last[i])
            order = np.argsort(-row[candidates], kind="stable")[:count]
            indices[i] = candidates[order]
        found.append((indices, np.take_along_axis(similarities, indices, axis=1)))
    return Neighbours(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def neighbour_votes(
    neighbours: Neighbours,
    labels: Int[Any, " M"],
    *,
    num_classes: int,
    temperature: float = 0.07,
) -> Float[np.ndarray, "N K"]:
    """Computes the share of each class in the weighted vote of the neighbours.

    A neighbour of similarity s has the weight exp(s / T).

    Args:
        neighbours: neighbours of N queries.
        labels: int[M], classes of the database.
        num_classes: number of classes K.
        temperature: T > 0; infinity weighs all neighbours equally.

    Returns:
        float64[N, K]; rows sum to 1.

    Raises:
        UserError: labels outside the classes, or a temperature that is not positive.
    """
    labels = np.asarray(labels)
    labels = as_labels(labels, objects=len(labels), classes=as_integer("num_classes", num_classes))
    if not temperature > 0:
        raise UserError(f"temperature is {temperature!r}; expected a positive number")
    similarities = neighbours.similarities.astype(np.float64)
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    votes = np.zeros((len(similarities), num_classes))
    rows = np.arange(len(votes))[:, None]
    np.add.at(votes, (rows, labels[neighbours.indices]), weights)
    return votes / votes.sum(axis=1, keepdims=True)


def retrieval_scores(
    queries: Float[Any, "N D"],
    database: Float[Any, "M D"],
    query_labels: Int[Any, " N"],
    database_labels: Int[Any, " M"],
    *,
    chunk: int = _CHUNK,
) -> Retrieval:
    """Ranks the database for every query by cosine similarity; images of its class are relevant.

    The average precision of a query is the mean over its relevant images r of the fraction of
    relevant images among those at least as similar as r. Images of equal similarity so share their
    precision, and the order of the database has no effect.

    Args:
        queries: float[N, D].
        database: float[M, D].
        query_labels: int[N].
        database_labels: int[M].
        chunk: queries at a time.

    Raises:
        UserError: embeddings of other sizes, or other numbers of labels.
    """
    query_labels, labels = np.asarray(query_labels), np.asarray(database_labels)
    for name, found, objects in (
        ("query_labels", query_labels, len(queries)),
        ("database_labels", labels, len(database)),
    ):
        if found.shape != (objects,):
            raise UserError(f"{name} have shape {found.shape}; expected ({objects},)")
    # Images of one class become neighbours in memory.
    order = np.argsort(labels, kind="stable")
    labels, database = labels[order], np.asarray(database)[order]
    starts = np.searchsorted(labels, query_labels, side="left")
    ends = np.searchsorted(labels, query_labels, side="right")
    precisions, hits = [], 0
    for first, similarities in _similarities(queries, database, chunk):
        for i, row in enumerate(similarities, start=first):
            hits += bool(labels[np.argmax(row)] == query_labels[i])
            relevant = np.sort(row[starts[i] : ends[i]])
            if not relevant.size:
                continue
            # Numbers of relevant and of all images that are at least as similar.
            among = relevant.size - np.searchsorted(relevant, relevant, side="left")
            row.sort()
            total = row.size - np.searchsorted(row, relevant, side="left")
            precisions.append(np.mean(among / total))
    mean = float(np.mean(precisions)) if precisions else float("nan")
    return Retrieval(mean, hits / len(query_labels))


def _similarities(queries: Any, database: Any, chunk: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the position of the first query of a chunk and float32[chunk, M]."""
    queries, database = _unit("queries", queries), _unit("database", database)
    if queries.shape[1] != database.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} values each; expected {database.shape[1]}, as the "
            "database"
        )
    chunk = as_integer("chunk", chunk)
    for first in range(0, len(queries), chunk):
        yield first, queries[first : first + chunk] @ database.T


def _unit(name: str, embeddings: Any) -> np.ndarray:
    """Returns embeddings of length 1, float32."""
    array = np.asarray(embeddings, np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name} have shape {array.shape}; expected [N, D], at least one")
    if not np.isfinite(array).all():
        raise UserError(f"{name} hold NaN or infinite numbers; expected finite ones")
    lengths = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    return (array / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
