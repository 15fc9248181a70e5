"""A run input is found by its content; its path is of one machine and goes nowhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import Annotated

import numpy as np
import pytest

from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.runtime.errors import UserError
from experiments.suite import config as config_lib
from experiments.suite.run_inputs import (
    RunInputField,
    fields_of,
    load_network,
    resolve,
    resolve_all,
)

NETWORK = RunInputField("required", random=True)
SEARCH = RunInputField("resumed", part="search")


def save(path, *, model="lenet_300_100", value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(
        path,
        model=model,
        num_classes=10,
        variables={"params": {"fc1": {"kernel": np.full((2, 3), value, np.float32)}}},
        normalisation=InputNormalisation(255.0, np.zeros((1, 1, 1)), np.ones((1, 1, 1))),
    )
    return path


@pytest.fixture
def run(tmp_path):
    """A run of two seeds, the second with another network."""
    for seed in (0, 1):
        folder = tmp_path / "run" / f"seed{seed}"
        save(folder / "network.safetensors", value=seed + 1.0)
        (folder / "record.json").write_text("{}")
    (tmp_path / "run" / "run.json").write_text(
        json.dumps({"experiment": "toy.table.row", "preset": "quick", "identity": {}})
    )
    return tmp_path / "run"


def test_a_run_gives_the_network_of_the_same_seed_or_the_first(run):
    first, second, third = (resolve(run, NETWORK, flag="a.b", seed=seed) for seed in (0, 1, 7))
    assert first.kind == "run"
    assert (first.experiment, first.seed) == ("toy.table.row", 0)
    assert second.seed == 1
    assert second.digest != first.digest
    assert third.digest == first.digest
    stored = load_network(second, "lenet_300_100")
    np.testing.assert_array_equal(stored.variables["params"]["fc1"]["kernel"], 2.0)


def test_folder_of_a_seed_file_and_run_are_the_same_input(run):
    whole = resolve(str(run), NETWORK, flag="a.b", seed=1)
    seed = resolve(run / "seed1", NETWORK, flag="a.b", seed=0)
    file = resolve(run / "seed1" / "network.safetensors", NETWORK, flag="a.b", seed=0)
    assert whole.digest == seed.digest == file.digest
    assert file.kind == "network"
    assert (file.experiment, file.seed) == ("toy.table.row", 1)


def test_a_file_deeper_in_a_run_is_of_its_experiment_and_a_copy_of_none(run, tmp_path):
    deeper = run / "seed1" / "tau0.5" / "network.safetensors"
    deeper.parent.mkdir()
    shutil.copy(run / "seed1" / "network.safetensors", deeper)
    found = resolve(deeper, NETWORK, flag="a.b", seed=0)
    assert (found.kind, found.experiment, found.seed) == ("network", "toy.table.row", 1)
    copied = resolve(shutil.copy(deeper, tmp_path / "x.safetensors"), NETWORK, flag="a.b", seed=0)
    assert (copied.experiment, copied.seed) == (None, None)


def test_no_record_holds_a_path(run):
    record = resolve(run, NETWORK, flag="a.b", seed=0).to_record()
    assert "path" not in record
    assert str(run) not in json.dumps(record)


def test_the_same_content_elsewhere_has_the_same_digest(run, tmp_path):
    moved = run.rename(tmp_path / "elsewhere")
    assert resolve(moved, NETWORK, flag="a.b", seed=0).digest == (
        resolve(save(tmp_path / "copy.safetensors", value=1.0), NETWORK, flag="a.b", seed=0).digest
    )


def test_a_search_is_a_folder_with_files(run):
    with pytest.raises(
        UserError, match=r"--a\.begin-from is .* holds no search of seed 0; expected"
    ):
        resolve(run, SEARCH, flag="a.begin_from", seed=0)
    (run / "seed0" / "search").mkdir()
    (run / "seed0" / "search" / "state.json").write_text("{}")
    found = resolve(run, SEARCH, flag="a.begin_from", seed=0)
    assert found.path == run / "seed0" / "search"
    (run / "seed0" / "search" / "state.json").write_text("[]")
    assert resolve(run, SEARCH, flag="a.begin_from", seed=0).digest != found.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere",
            "--a.b is .*nowhere.*, which does not exist; expected the folder",
        ),
        ("empty", "--a.b is .*empty'?, which holds no trained network"),
        ("nowhere@3", "has no checkpoint of step 3; expected one of its steps: none"),
    ],
)
def test_wrong_inputs_are_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        resolve(tmp_path / name, NETWORK, flag="a.b", seed=0)
    assert "\n" not in str(caught.value)


def test_another_network_is_refused(tmp_path):
    found = resolve(save(tmp_path / "n.safetensors"), NETWORK, flag="a.b", seed=0)
    with pytest.raises(UserError, match=r"--a\.b holds the network 'lenet_300_100'; expected 'nin"):
        load_network(found, "nin_cifar10")


def test_random_is_accepted_where_the_field_says_so(tmp_path):
    found = resolve("random", NETWORK, flag="a.b", seed=0)
    assert found.kind == "random"
    with pytest.raises(UserError, match=r"--a\.b is 'random'; expected trained weights"):
        load_network(found, "lenet_300_100")
    with pytest.raises(UserError, match="does not exist"):
        resolve("random", RunInputField(), flag="a.b", seed=0)


@dataclasses.dataclass(frozen=True)
class Group:
    source: Annotated[str, NETWORK] = ""
    other: str = ""


@dataclasses.dataclass(frozen=True)
class Config:
    group: Group = Group()
    start: Annotated[str, RunInputField()] = ""


def test_fields_are_found_in_groups():
    config = Config(group=Group(source="x"))
    assert fields_of(config) == {"group.source": (NETWORK, "x"), "start": (RunInputField(), "")}


def test_a_tuple_holds_several_run_inputs(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Several:
        policies: Annotated[tuple[str, ...], RunInputField()] = ()

    paths = [tmp_path / name for name in ("a.bin", "b.bin")]
    for path in paths:
        path.write_bytes(path.name.encode())
    config = Several(tuple(map(str, paths)))
    assert list(fields_of(config)) == ["policies[0]", "policies[1]"]
    assert fields_of(Several()) == {}
    found = resolve_all(config, seed=0)
    digests = [found[f"policies[{i}]"].digest for i in range(2)]
    assert len(set(digests)) == 2
    assert config_lib.identity(config, found) == {"policies": digests}
    with pytest.raises(UserError, match=r"--policies is '.*absent', which does not exist"):
        resolve_all(Several((str(tmp_path / "absent"),)), seed=0)
