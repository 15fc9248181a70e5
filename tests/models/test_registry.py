"""Names, aliases, overrides."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import adaptive_nets as an
from adaptive_nets.models import model_entry, registry
from adaptive_nets.models.normalisation import Normalisation
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.weights.files import default_normalisation
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


@pytest.fixture
def scratch_registry(monkeypatch):
    """Registrations of a test end with it."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(registry, "_ALIASES", dict(registry._ALIASES))


@pytest.mark.parametrize("taken", ["lenet300", "lenet_300_100"])
def test_a_name_cannot_be_registered_twice(taken):
    def build():
        """Toy network."""

    register = register_model(taken, input_shape=(1, 1, 1), num_classes=1, source="")
    message = (
        rf"'{taken}' is registered already: adaptive_nets\.models\.lenet\.\w+ and "
        rf"{__name__}\..*build$"
    )
    with pytest.raises(ValueError, match=message):
        register(build)


def test_a_model_brings_its_normalisation(scratch_registry):
    own = Normalisation((0.1, 0.2), (0.3, 0.4), "two channels")
    options = {"input_shape": (4, 4, 2), "num_classes": 3, "source": ""}

    def build(*, num_classes):
        """Toy network."""

    register_model("toy_own", **options, normalisation=own)(build)
    register_model("toy_default", **options)(build)
    assert default_normalisation("toy_own") == own
    assert default_normalisation("toy_default").mean == (0.0, 0.0)


def test_a_normalisation_has_one_value_per_channel():
    own = Normalisation((0.1,), (0.3, 0.4), "")
    message = "'toy' has 1 means and 2 deviations; expected 3, the channels of input_shape"
    with pytest.raises(ValueError, match=message):
        register_model("toy", input_shape=(4, 4, 3), num_classes=3, source="", normalisation=own)
