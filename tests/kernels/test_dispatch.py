"""Choice of an implementation, and the record of what was chosen."""

from __future__ import annotations

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import (
    compact_tensor,
    masked_conv,
    perforated_conv,
    process_implementations,
    record_implementations,
)
from kernels._common.dispatch import Choice, first_supported, note_choice
from kernels.masked_conv import choose

pytestmark = pytest.mark.core
X, W = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)
ACTIVE = np.ones((1, 4, 4), bool)
KEPT = np.arange(16).reshape(4, 4) % 2 == 0


def refuse():
    raise NotImplementedError("needs a TPU")


def choose_from(requested, preferred=("first", "second")):
    implementations = {"first": refuse, "second": lambda: lambda x: x + 1, "third": refuse}
    paths = {"second": "gathered"}
    return first_supported("test", requested, implementations, preferred, execution_paths=paths)


@pytest.mark.parametrize("requested", [None, "second", ("third", "second")])
def test_the_first_that_accepts_is_chosen_and_noted_when_it_runs(requested):
    with record_implementations() as ran:
        choice, compute = choose_from(requested)
        assert ran == {}
        assert compute(1) == compute(1) == 2
    assert ran == {"test": ["second:gathered"]}
    assert (choice.implementation, choice.execution_path) == ("second", "gathered")
    tried = {None: ["first"], "second": []}.get(requested, ["third"])
    assert choice.passed_over == tuple((name, "needs a TPU") for name in tried)


@pytest.mark.parametrize(
    ("requested", "error", "message"),
    [
        ("first", NotImplementedError, "first: needs a TPU"),
        (("first", "third"), NotImplementedError, "first: needs a TPU; third: needs a TPU"),
        ("fourth", ValueError, "'fourth'; expected None or one of first, second, third"),
        ((), ValueError, "implementation is an empty sequence"),
    ],
)
def test_a_request_that_cannot_be_met(requested, error, message):
    with pytest.raises(error, match=message):
        choose_from(requested)


def test_contexts_nest_and_close():
    with record_implementations() as outer:
        note_choice("op", Choice("a"))
        with record_implementations() as inner:
            note_choice("op", Choice("b", "path"))
        # Equal records are told apart.
        with record_implementations() as empty:
            pass
        note_choice("op", Choice("c"))
    note_choice("op", Choice("d"))
    assert (outer, inner, empty) == ({"op": ["a", "b:path", "c"]}, {"op": ["b:path"]}, {})
    assert json.loads(json.dumps(outer)) == outer
    process_implementations()["op"].clear()
    assert process_implementations()["op"] == ["a", "b:path", "c", "d"]


def test_a_context_closes_on_an_error():
    with pytest.raises(KeyError), record_implementations() as ran:
        raise KeyError
    note_choice("after an error", Choice("a"))
    assert ran == {}


def test_threads_are_collected_together():
    with record_implementations() as ran:
        threads = [
            threading.Thread(target=note_choice, args=(f"op{i % 4}", Choice(f"name{i}")))
            for i in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {name: len(labels) for name, labels in ran.items()} == {f"op{i}": 10 for i in range(4)}


def test_every_operation_notes_what_it_runs():
    with record_implementations() as ran:
        masked_conv(X, W, ACTIVE, implementation="dense")
        choose(X, W, ACTIVE, implementation="reference")
        values = perforated_conv(X, W, KEPT, fill="compact", implementation="reference")
        perforated_conv(compact_tensor(values, KEPT), W, KEPT)
        perforated_conv(X, W, np.ones((4, 4), bool))
    assert ran == {
        "masked_conv": ["dense"],
        "perforated_conv": ["reference", "xla:compact input", "dense"],
    }


def test_a_compiled_function_is_noted_when_it_is_traced():
    run = jax.jit(lambda mask: masked_conv(X, W, mask, implementation="xla"))
    with record_implementations() as first:
        run(jnp.asarray(ACTIVE))
    with record_implementations() as second:
        run(jnp.asarray(ACTIVE))
    assert list(first) == ["masked_conv"]
    assert first["masked_conv"][0].startswith("xla:")
    assert second == {}
    assert first["masked_conv"][0] in process_implementations()["masked_conv"]
