"""Nasty numbers in every flag of every experiment: refused in one line, or usable."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DataConfig, DistributedConfig, OptimiserConfig
from adaptive_nets.training.duration import Duration, Timing, check_order
from adaptive_nets.training.ranges import (
    DurationRange,
    Range,
    declared_range,
    described_ranges,
)
from experiments.commands.run import parse_flags
from experiments.suite import config as config_lib
from experiments.suite.registry import experiments

NASTY = (math.nan, math.inf, -math.inf, 0, -1, 10**9, 10**30, 1e-300)
NASTY_DURATIONS = (
    "1e400 steps", "0 steps", "-1 epochs", "nan epochs", "inf steps", "1000000000000000000 epochs",
    "1e30%", "1e-300 epochs", "", "steps",
)  # fmt: skip
# Numbers of things that are made at once, and would not fit a machine.
MADE_AT_ONCE = {
    "batch_size", "eval_batch_size", "input_workers", "input_threads", "input_prefetch", "units",
    "width", "crop_padding", "batches", "repetitions", "sizes",
}  # fmt: skip


def groups():
    """Every group of flags of every experiment's presets, once for each class and preset."""
    found = {}
    for experiment in experiments().values():
        config = experiment.presets["paper"].config
        parts = [config_lib.training(config)] if hasattr(config, "train") else []
        for part in (config, *parts):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if dataclasses.is_dataclass(value) and field.name != "train":
                    found.setdefault((type(value), field.name), value)
    return found


GROUPS = groups()


def trained_config():
    """The configuration of an experiment that trains."""
    configs = (experiment.presets["smoke"].config for experiment in experiments().values())
    return next(config for config in configs if hasattr(config, "train"))


def numbers(group):
    """Names and values of the numeric fields of a group."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, (int, float)) and not isinstance(first, bool):
            yield field.name, value


def durations(group):
    for field in dataclasses.fields(group):
        if isinstance(declared_range(type(group), field.name), DurationRange):
            yield field.name, getattr(group, field.name)


def like(example, nasty):
    """The nasty value in the type of a field; None if the command line refuses it as no integer."""
    first = example[0] if isinstance(example, tuple) else example
    if isinstance(first, int):
        if isinstance(nasty, float):
            return None
        value = nasty
    else:
        value = float(nasty)
    return (value,) * len(example) if isinstance(example, tuple) else value


def refusal(make):
    """The message of a refused value; "" if it is accepted."""
    try:
        make()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: f"{kind[0].__name__}-{kind[1]}")
def test_nasty_numbers_are_refused_or_usable(kind):
    group = GROUPS[kind]
    for name, example in numbers(group):
        for nasty in NASTY:
            value = like(example, nasty)
            if value is None:
                continue
            changed = {name: value}
            message = refusal(lambda changed=changed: dataclasses.replace(group, **changed))
            if message:
                assert message.startswith(f"--{kind[1]}.{name.replace('_', '-')} is {value!r}")
                assert "expected" in message
                assert "\n" not in message
                continue
            item = value[0] if isinstance(value, tuple) else value
            # Accepted: arrays hold it, and nothing is made in such numbers.
            assert math.isfinite(item)
            assert name not in MADE_AT_ONCE or item < 10**9, name
            if isinstance(item, int):
                assert 0 <= item < 2**32, name
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    rounded = float(np.float32(item))
                assert math.isfinite(rounded)
                assert (rounded == 0) == (item == 0), name
            np.random.default_rng(int(item) if name.endswith("seed") else 0)


@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: f"{kind[0].__name__}-{kind[1]}")
def test_nasty_durations_are_refused_or_usable(kind):
    group = GROUPS[kind]
    for name, example in durations(group):
        for text in NASTY_DURATIONS:
            value = (text,) if isinstance(example, tuple) else text
            changed = {name: value}
            message = refusal(lambda changed=changed: dataclasses.replace(group, **changed))
            if message:
                assert message.startswith(f"--{kind[1]}.")
                assert f"--{kind[1]}.{name.replace('_', '-')} " in message
                assert repr(text) in message
                assert "expected" in message
            else:
                timing = Timing(1000, 600, 100, 60_000)
                assert 0 <= timing.steps(text) < 2**31


@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: f"{kind[0].__name__}-{kind[1]}")
def test_every_number_declares_its_range(kind):
    group = GROUPS[kind]
    for name, _ in numbers(group):
        assert isinstance(declared_range(type(group), name), Range), name
    text = {name for name, value in dataclasses.asdict(group).items() if _is_duration(value)}
    assert text == {name for name, value in durations(group) if value}


def _is_duration(value):
    first = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(first, str) or not first[:1].isdigit():
        return False
    return not refusal(lambda: Duration.parse(first))


@pytest.mark.parametrize("nasty", ["nan", "1" + "0" * 30])
def test_nasty_flags_from_the_command_line(nasty):
    config = trained_config()
    values = config_lib.flat(config_lib.to_dict(config))
    for name in described_ranges(type(config)):
        flag = "--" + name.replace("_", "-")
        if not isinstance(values[name], (int, float)) or name.startswith(("mesh.", "run.")):
            continue
        arguments = ["ID", f"{flag}={nasty}"]
        message = refusal(lambda given=arguments: parse_flags(config, given, program="run"))
        assert message.startswith(flag) or not message
        assert "\n" not in message
        # Some learning rate or decay of 1e30 is a number like others; what is counted is not.
        assert message or (nasty != "nan" and not name.startswith("data."))


@pytest.mark.parametrize(
    ("interval", "kind", "text"),
    [
        (Range(), float, "a finite number"),
        (Range(0, open_low=True), float, "a positive number"),
        (Range(0), float, "0 or more"),
        (Range(0, 1, open_high=True), float, "a number in [0, 1)"),
        (Range(0, 1, open_low=True), float, "a number in (0, 1]"),
        (Range(1, 8), int, "a positive number up to 8"),
        (Range(2, 8), int, "a whole number from 2 to 8"),
    ],
)
def test_ranges_in_words(interval, kind, text):
    assert interval.describe(kind) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # The nearest float32 is 1, with which an average would never move.
        (
            lambda: OptimiserConfig(ema_decay=1 - 1e-12),
            "--optimiser.ema-decay is 0.999999999999; expected a number in [0, 1), in float32",
        ),
        (lambda: OptimiserConfig(epsilon=-1e-8), "--optimiser.epsilon is -1e-08; expected a pos"),
        (lambda: DataConfig(random_label_seed=-1), "--data.random-label-seed is -1"),
        (lambda: DataConfig(random_label_seed=2**32), "--data.random-label-seed is 4294967296"),
        (lambda: DistributedConfig(num_processes=0), "--distributed.num-processes is 0"),
        (lambda: DistributedConfig(process_id=-1), "--distributed.process-id is -1"),
        (lambda: DataConfig(batch_size=10**5000), "--data.batch-size is a number of thousands of"),
    ],
)
def test_messages(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(message)


def test_the_ends_of_the_ranges_are_accepted():
    data = DataConfig(random_label_seed=2**32 - 1, crop_padding=1024, pixel_scale=1e-3)
    np.random.default_rng(data.random_label_seed)
    tiny = float(np.finfo(np.float32).tiny)
    assert OptimiserConfig(learning_rate=tiny).learning_rate == tiny
    with pytest.raises(UserError, match="in float32"):
        OptimiserConfig(learning_rate=tiny / 2)


def test_a_time_after_another_is_refused_in_any_unit():
    check_order("a", "5 epochs", "b", "5 epochs")
    check_order("a", "5 epochs", "b", "2%")  # Comparable only with the lengths of the run.
    with pytest.raises(UserError, match="--a is '6 steps', which is after --b '5 steps'"):
        check_order("a", "6 steps", "b", "5 steps")
    timing = Timing(1000, 100, 10, 1000)
    check_order("a", "1 epochs", "b", "10%", timing)
    with pytest.raises(UserError, match="--a is '101 steps', which is after --b '10%'"):
        check_order("a", "101 steps", "b", "10%", timing)


@pytest.mark.parametrize("length", ["2147483647 epochs", "9e15 examples"])
def test_more_steps_than_int32_counts_are_refused(length):
    with pytest.raises(UserError, match=r"--schedule\.length is .* expected at most 2147483647"):
        Timing.of(length, batch_size=1, examples=100)


def test_help_and_ranges_say_the_same(capsys):
    config = trained_config()
    with pytest.raises(SystemExit):
        parse_flags(config, ["ID", "--help"], program="run")
    lines = capsys.readouterr().out.splitlines()
    assert "  --optimiser.momentum FLOAT  a number in [0, 1)" in lines
    assert any(line.startswith("  --seeds {None}|INT  a positive number up to") for line in lines)
