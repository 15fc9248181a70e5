"""Lengths of training in every unit."""

from __future__ import annotations

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.duration import Duration, Timing

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("1 step", 1),
        ("3 epochs", 1800),
        ("0.5epochs", 300),
        ("1.5e3 examples", 15),
        ("25%", 250),
        ("2.5 percent", 25),
        ("0%", 0),
        ("1e2 STEPS", 100),
    ],
)
def test_converts_to_steps(text, steps):
    duration = Duration.parse(text)
    assert duration.to_steps(steps_per_epoch=600, batch_size=100, total_steps=1000) == steps


@pytest.mark.parametrize(
    "text", ["", "5", "epochs", "five steps", "-3 steps", "3 hours", "3 steps 4"]
)
def test_anything_else_is_named(text):
    with pytest.raises(UserError, match=r"--schedule\.warmup is") as error:
        Duration.parse(text, name="--schedule.warmup")
    assert "\n" not in str(error.value)


def test_a_length_in_percent_of_itself_is_refused():
    with pytest.raises(UserError, match="50%"):
        Timing.of("50%", batch_size=10, examples=100)


def test_timing_counts_whole_batches():
    timing = Timing.of("3 epochs", batch_size=8, examples=70)
    assert (timing.total_steps, timing.steps_per_epoch) == (24, 8)
    assert timing.steps("50%") == 12
    assert timing.interval("0.001%") == 1


def test_a_batch_larger_than_the_set_is_named():
    with pytest.raises(UserError, match=r"--data\.batch-size is 71; expected at most the 70"):
        Timing.of("1 epoch", batch_size=71, examples=70)
