"""Names, aliases, overrides."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import adaptive_nets as an
from adaptive_nets.models import model_entry
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def test_lists_by_pattern_and_sorted():
    assert an.list_models("lenet_300_100*") == ["lenet_300_100", "lenet_300_100_sparse_vd"]
    assert an.list_models("nothing*") == []
    assert an.list_models() == sorted(an.list_models())


@pytest.mark.parametrize("alias", ["lenet300", "lenet-300-100"])
def test_aliases_are_the_same_model(alias):
    assert model_entry(alias) is model_entry("lenet_300_100")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("lenet_300_10", "lenet_300_100"),
        ("lenet5caffe", "lenet5_caffe"),
        ("LeNet5_Caffe", "lenet5_caffe"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"model '{name}' is unknown; did you mean '{nearest}'"):
        an.create_model(name)


def test_an_unknown_override_suggests_the_nearest():
    with pytest.raises(UserError, match="takes no 'treshold'; did you mean 'threshold'"):
        an.create_model("lenet_300_100_sparse_vd", treshold=1.0)


def test_overrides_reach_the_module():
    model = an.create_model("mlp_4x1000", hidden=(3,), num_classes=7, dtype=jnp.bfloat16)
    assert (model.hidden, model.num_classes, model.dtype) == ((3,), 7, jnp.bfloat16)


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "10"])
def test_a_number_of_classes_that_is_none_is_named(count):
    with pytest.raises(UserError, match=rf"num_classes is {count!r}; expected a positive whole"):
        an.create_model("lenet5_caffe", num_classes=count)


@pytest.mark.parametrize("name", an.list_models())
def test_every_entry_is_complete(name):
    entry = model_entry(name)
    assert name == name.lower()
    assert " " not in name
    assert {"num_classes", "dtype"} <= set(entry.overrides)
    assert entry.num_classes > 0
    assert len(entry.input_shape) == 3
    assert entry.source
    assert entry.description.endswith(".")


def test_a_builder_describes_itself():
    register = register_model("undescribed", input_shape=(1, 1, 1), num_classes=1, source="")
    with pytest.raises(ValueError, match="'undescribed' has no docstring"):
        register(lambda: None)
    assert "undescribed" not in an.list_models()


def test_a_name_cannot_be_registered_twice():
    register = register_model("lenet300", input_shape=(1, 1, 1), num_classes=1, source="")
    with pytest.raises(ValueError, match="'lenet300' is registered already"):
        register(lambda: None)
