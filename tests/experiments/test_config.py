"""Identity of runs."""

from __future__ import annotations

import dataclasses

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import (
    DataConfig,
    MeshConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.ranges import check_ranges
from experiments.commands.parsing import parse
from experiments.commands.run import form_with_config_flags, parse_flags
from experiments.suite import config as config_lib
from experiments.suite.config import Training


@dataclasses.dataclass(frozen=True)
class PruningConfig:
    """Values that a paper adds."""

    keep: float = 0.5


@dataclasses.dataclass(frozen=True)
class PrunedConfig:
    """A training run with values of a paper."""

    train: Training = TrainConfig()  # noqa: RUF009
    pruning: PruningConfig = PruningConfig()


def test_where_and_how_a_run_is_carried_out_is_not_its_identity():
    config = TrainConfig()
    same = dataclasses.replace(
        config,
        mesh=MeshConfig(model=2),
        run=RunConfig(log_every="7 steps"),
        data=DataConfig(source="embedded", eval_batch_size=10),
    )
    assert config_lib.identity_hash(config) == config_lib.identity_hash(same)
    assert config_lib.to_dict(config) != config_lib.to_dict(same)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": DataConfig(batch_size=50)},
        {"schedule": ScheduleConfig(length="1 epoch")},
        {"pruning": PruningConfig(keep=0.25)},
    ],
)
def test_everything_else_is(changed):
    config = PrunedConfig()
    other = config_lib.replace_groups(config, **changed)
    assert config_lib.identity_hash(config) != config_lib.identity_hash(other)
    (name,) = config_lib.differences(config_lib.identity(config), config_lib.identity(other))
    assert name.split(".")[0] == next(iter(changed))


def test_what_a_record_changed_is_of_the_present_preset():
    preset = TrainConfig()
    recorded = config_lib.to_dict(preset)
    recorded["data"] |= {"batch_size": 7, "eval_batch_size": 3, "crop_area": [0.5, 1.0]}
    recorded["run"]["log_every"] = "1 steps"
    recorded["gone"] = {"flag": 1}
    del recorded["optimiser"]["ema_decay"]
    assert config_lib.changed_since(recorded, preset) == ["data.batch_size", "data.crop_area"]
    later = dataclasses.replace(preset, data=DataConfig(batch_size=7, crop_area=(0.5, 1.0)))
    assert config_lib.changed_since(recorded, later) == []


def test_groups_of_another_class_count_as_different():
    first, second = config_lib.identity(TrainConfig()), config_lib.identity(PrunedConfig())
    assert "pruning.keep" in config_lib.differences(first, second)


def test_a_training_within_a_configuration_counts_as_its_own_groups():
    config = PrunedConfig()
    plain, whole = config_lib.to_dict(config.train), config_lib.to_dict(config)
    assert list(whole) == [*plain, "pruning"]
    assert config_lib.text(config).startswith(config_lib.text(config.train))
    assert config_lib.training(config) is config_lib.group(config, "train")
    assert config_lib.group(config, "data") is config.train.data
    assert config_lib.group(config, "search") is None
    arguments = ["ID", "--data.batch-size", "50", "--pruning.keep", "0.25"]
    read = parse(form_with_config_flags(config), arguments, program="run").values
    data, pruning = DataConfig(batch_size=50), PruningConfig(keep=0.25)
    assert read == config_lib.replace_groups(config, data=data, pruning=pruning)


def test_names_become_flags():
    assert config_lib.flag("optimiser.learning_rate") == "--optimiser.learning-rate"


def test_text_has_a_line_for_every_value():
    text = config_lib.text(TrainConfig())
    assert 'schedule.length = "200 epochs"\n' in text
    assert len(text.splitlines()) == len(config_lib.flat(config_lib.to_dict(TrainConfig())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(batch_size=0), "--data.batch-size is 0; expected a positive number"),
        (lambda: DataConfig(accumulation=3), "--data.accumulation is 3; expected a divisor"),
        (lambda: DataConfig(crop_padding=-1), "--data.crop-padding is -1"),
        (lambda: DataConfig(pixel_scale=0.0), "--data.pixel-scale is 0.0"),
        (lambda: MeshConfig(model=0), "--mesh.model is 0"),
        (lambda: RunConfig(keep_checkpoints=1), "--run.keep-checkpoints is 1"),
        (lambda: RunConfig(log_every="often"), "--run.log-every is 'often'"),
        (lambda: ScheduleConfig(length="50%"), "--schedule.length is '50%'"),
        (lambda: ScheduleConfig(length="0 steps"), "--schedule.length is '0 steps'"),
        (lambda: ScheduleConfig(factor=0.0), "--schedule.factor is 0.0"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_number_without_a_declared_range_is_finite():
    check_ranges(PrunedConfig())
    with pytest.raises(UserError, match=r"--pruning\.keep is nan; expected a finite number"):
        check_ranges(PrunedConfig(pruning=PruningConfig(keep=float("nan"))))


def test_flags_of_a_run_are_finite():
    arguments = ["some.id", "--pruning.keep", "inf"]
    with pytest.raises(UserError, match=r"--pruning\.keep is inf"):
        parse_flags(PrunedConfig(), arguments, program="run")
