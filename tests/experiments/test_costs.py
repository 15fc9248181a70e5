"""Costs of presets, from records of whole runs or extrapolated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from experiments.suite import config as config_lib
from experiments.suite import registry
from experiments.suite.cost import seed_costs
from experiments.suite.experiment import Experiment
from experiments.suite.records import PUBLISHED, Record, collect

FIRST = next(iter(registry.experiments().values()))


def record(
    experiment: Experiment, *, preset="paper", changed=(), steps=100, seconds=50.0, dataset=None
):
    data = config_lib.group(experiment.presets[preset].config, "data")
    return Record(
        {
            "experiment": experiment.id,
            "preset": preset,
            "changed": list(changed),
            "steps": steps,
            "seconds": seconds,
            "config": {"data": {"batch_size": data.batch_size}},
            "devices": {"platform": "cpu", "cpu_cores": 2},
            "dataset": dataset or {"train": 60_000, "complete": True},
        },
        Path("record.json"),
    )


def trained() -> Experiment:
    """Some experiment that trains."""
    for experiment in registry.experiments().values():
        schedule = config_lib.group(experiment.presets["paper"].config, "schedule")
        if schedule is not None and schedule.length.endswith("epochs"):
            return experiment
    raise AssertionError("no experiment trains")


def test_cost_is_that_of_unchanged_presets():
    experiment = trained()
    costs = seed_costs(
        experiment,
        [
            record(experiment, seconds=70.0),
            record(experiment, seconds=5.0, changed=["schedule.length"]),
        ],
    )
    assert [(str(cost), cost.extrapolated) for cost in costs] == [("paper 1:10 on 2 cores", False)]
    assert seed_costs(experiment, [record(experiment, changed=["model.name"])]) == []


def test_cost_of_another_length_is_extrapolated():
    experiment = trained()
    config = config_lib.training(experiment.presets["paper"].config)
    epochs = float(config.schedule.length.split()[0])
    steps = round(epochs * (60_000 // config.data.batch_size))
    (cost,) = seed_costs(experiment, [record(experiment, changed=["schedule.length"])])
    assert cost.extrapolated
    assert cost.seconds == pytest.approx(0.5 * steps)
    assert str(cost).startswith("paper about ")
    assert str(cost).endswith("(extrapolated)")
    without_steps = record(experiment, changed=["schedule.length"], steps=0)
    assert seed_costs(experiment, [without_steps]) == []


@pytest.mark.parametrize(
    ("limit", "images", "counts"),
    [(0, 4000, False), (4000, 4000, True), (4000, 3999, False), (0, 60_000, True)],
)
def test_cost_is_never_that_of_fewer_images_than_the_preset_uses(limit, images, counts):
    """A run of the unchanged preset on a part of the data did less work than the preset."""
    experiment = trained()
    preset = experiment.presets["paper"]
    data = dataclasses.replace(config_lib.group(preset.config, "data"), train_limit=limit)
    small = dataclasses.replace(preset, config=config_lib.replace_groups(preset.config, data=data))
    experiment = dataclasses.replace(experiment, presets={**experiment.presets, "paper": small})
    found = record(experiment, dataset={"train": images, "test": 10_000, "complete": False})
    assert bool(seed_costs(experiment, [found])) is counts


def test_a_cost_from_a_shortened_run_says_so_everywhere():
    """No listing shows the time of a run with changed flags as that of its preset."""
    published = collect([PUBLISHED])
    for experiment in registry.experiments().values():
        for cost in seed_costs(experiment, published):
            own = [r for r in published if (r.experiment, r.preset) == (experiment.id, cost.preset)]
            if all(r.changed for r in own):
                assert cost.extrapolated
                assert "(extrapolated)" in str(cost)
