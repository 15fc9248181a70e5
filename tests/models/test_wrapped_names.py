"""State dicts as training scripts write them: wrappers, counters, moving averages."""

from __future__ import annotations

import argparse
import itertools

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save
from torch_files import Tensor, archive, sequence, state_dict

from adaptive_nets.models.weights.files import (
    default_normalisation,
    load_foreign,
    read_state_dict,
)
from adaptive_nets.models.weights.state_dict import match_names
from adaptive_nets.models.weights.wrappers import find_state_dict, unwrap
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
NAMES = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias",
         "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")  # fmt: skip
SIZES = ((20, 1, 5, 5), (20,), (50, 20, 5, 5), (50,), (500, 800), (500,), (10, 500), (10,))


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=size).astype(np.float32) for size in SIZES]
    return dict(zip(NAMES, arrays, strict=True))


def load(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return load_foreign(
        path, "lenet5_caffe", normalisation=default_normalisation("lenet5_caffe")
    ).variables["params"]


def check(params, tensors):
    for name in ("conv1", "conv2"):
        expected = tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params[name]["kernel"], expected)
    np.testing.assert_array_equal(params["fc2"]["kernel"], tensors["fc2.weight"].T)


WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "model")


def wrap(name, number):
    """Puts wrappers at positions that depend on the number, on some names only."""
    parts = name.split(".")
    for k in range(number % 4):
        parts.insert((number * 7 + k) % len(parts), WRAPPERS[(number * 3 + k) % len(WRAPPERS)])
    return ".".join(parts)


def test_wrappers_anywhere_on_some_names(tmp_path, tensors):
    wrapped = {wrap(name, n): tensor for n, (name, tensor) in enumerate(tensors.items())}
    assert set(wrapped) & set(tensors)
    assert len(set(wrapped) - set(tensors)) > 4
    check(load(tmp_path, archive({"state_dict": state_dict(wrapped)})), tensors)


@pytest.mark.parametrize("order", [*itertools.permutations(["module", "_orig_mod", "model"])])
def test_any_order_of_wrappers(order):
    one = np.ones(1, np.float32)
    for names in (order, order * 2):
        before = ".".join([*names, "features.0.weight"])
        inside = ".".join(["features", *names, "0.weight"])
        for name in (before, inside):
            assert list(unwrap({name: one}, source="file")) == ["features.0.weight"]


def test_a_module_of_the_network_keeps_its_name():
    one = np.ones(2, np.float32)
    names = {"module.net.a.weight": one}
    assert list(unwrap(names, ["params/net/a/kernel"], source="file")) == ["net.a.weight"]
    # The last part is the parameter's own name.
    assert list(unwrap({"a.module": one}, source="file")) == ["a.module"]


def test_two_names_of_one_parameter_are_both_named(tmp_path, tensors):
    twice = tensors | {"module.conv1.bias": tensors["conv1.bias"]}
    with pytest.raises(UserError, match=r"conv1\.bias and module\.conv1\.bias are both") as error:
        load(tmp_path, archive(state_dict(twice)))
    assert "\n" not in str(error.value)
    twice = tensors | {"conv1/bias": tensors["conv1.bias"]}
    with pytest.raises(UserError, match=r"conv1\.bias and conv1/bias both match conv1\.bias"):
        load(tmp_path, save(twice))
    with pytest.raises(UserError, match=r"fc\.weight and last_linear\.weight both match"):
        match_names(
            ["params/fc/kernel", "params/fc/bias"],
            ["fc.weight", "last_linear.weight", "last_linear.bias"],
        )


def averaged(tensors):
    return {"n_averaged": np.int64(7), **{f"module.{n}": t for n, t in tensors.items()}}


def scripts(tensors):
    """Checkpoints in the forms of well-known training scripts, by the name of the tool."""
    plain, other = state_dict(tensors), state_dict({n: t + 1 for n, t in tensors.items()})
    momentum = {"state": {0: {"step": Tensor(np.float32(3)), "exp_avg": Tensor(np.ones(3))}}}
    optimizer = {**momentum, "param_groups": [{"lr": 0.1, "params": [0]}]}
    ddp = state_dict({f"module.{n}": t for n, t in tensors.items()})
    lightning = state_dict({f"model.{n}": t for n, t in tensors.items()})
    fields = argparse.Namespace(lr=0.1, data_path="x")
    return {
        "torchvision": {
            "model": plain, "optimizer": optimizer, "lr_scheduler": {"last_epoch": 3},
            "epoch": 3, "args": fields, "scaler": {"scale": 65536.0},
            "model_ema": state_dict(averaged({n: t + 1 for n, t in tensors.items()})),
        },
        "torchvision, averaged only": {"model_ema": state_dict(averaged(tensors)), "epoch": 3},
        "timm": {
            "epoch": 3, "arch": "lenet", "state_dict": plain, "optimizer": optimizer, "version": 2,
            "args": fields, "amp_scaler": {"scale": 1.0}, "state_dict_ema": other,
            "metric": np.float64(71.5),
        },
        "the ImageNet example": {
            "epoch": 90, "arch": "alexnet", "state_dict": ddp,
            "best_acc1": Tensor(np.float32(71.5)), "optimizer": optimizer, "scheduler": {},
        },
        "Lightning": {
            "epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.0",
            "state_dict": lightning, "optimizer_states": [optimizer], "lr_schedulers": [],
            "hyper_parameters": fields, "loops": {"fit_loop": {"state_dict": {}}},
        },
        "DeepSpeed": {"module": plain, "optimizer": None, "ds_config": {"a": 1}, "ds_version": "0"},
        "SWA": state_dict(averaged(tensors)),
        "an unknown script": {"learner": {"weights_of_epoch_3": plain}, "optimizer": optimizer},
    }  # fmt: skip


TOOLS = list(scripts({}))


@pytest.mark.parametrize("form", [archive, sequence])
@pytest.mark.parametrize("tool", TOOLS)
def test_files_of_training_scripts(tmp_path, tensors, tool, form):
    (tmp_path / "weights").write_bytes(form(scripts(tensors)[tool]))
    found = unwrap(read_state_dict(tmp_path / "weights"), source="file")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_counters_are_ignored_and_other_floats_are_not(tmp_path, tensors):
    counters = {
        "n_averaged": np.array(3), "bn.num_batches_tracked": np.array(3), "step": np.array([2.0]),
        "ema.decay": np.float32(0.9), "initted": np.array(True), "anything": np.array([4]),
    }  # fmt: skip
    tree = {**tensors, **counters}
    assert list(find_state_dict(tree, source="file")) == list(tensors)
    for name in ("logit_scale", "gamma"):
        left = tensors | {name: np.ones(1, np.float32)}
        with pytest.raises(UserError, match=f"{name} .* is left over"):
            load(tmp_path, save(left))


def test_several_state_dicts_are_named():
    one = {"a.weight": np.ones(2, np.float32)}
    with pytest.raises(UserError, match="several state dicts, under 'generator', 'critic'"):
        find_state_dict({"generator": one, "critic": one}, source="file")


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_unsigned_integers_are_read_or_ignored(tmp_path, tensors, dtype):
    check(load(tmp_path, save(tensors | {"table": np.arange(6).astype(dtype)})), tensors)
    whole = np.arange(50).astype(dtype)
    params = load(tmp_path, save(tensors | {"conv2.bias": whole}))
    np.testing.assert_array_equal(params["conv2"]["bias"], whole.astype(np.float32))


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_float8_is_named_where_it_is_needed(tmp_path, tensors, dtype):
    eight = np.arange(50).astype(dtype)
    check(load(tmp_path, save(tensors | {"unused": eight})), tensors)
    with pytest.raises(UserError, match=r"conv2\.bias is a tensor of the dtype F8.* BF16") as error:
        load(tmp_path, save(tensors | {"conv2.bias": eight}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_number_that_is_not_finite_is_named(tmp_path, tensors, value):
    bad = {name: tensor.copy() for name, tensor in tensors.items()}
    bad["conv2.weight"][3, 2, 1, 0] = value
    with pytest.raises(UserError, match=rf"conv2\.weight has {value} at \[") as error:
        load(tmp_path, archive(state_dict(bad)))
    assert "\n" not in str(error.value)
    # A number that is not needed does no harm, and one beyond float32 becomes infinite.
    check(load(tmp_path, archive({"state_dict": state_dict(tensors), "best": value})), tensors)
    bad = tensors | {"fc1.bias": np.full(500, 1e300)}
    with pytest.raises(UserError, match=r"fc1\.bias has inf at \[0\]"):
        load(tmp_path, archive(state_dict(bad)))
