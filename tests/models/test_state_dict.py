"""State dicts of PyTorch: names of the usual collections, layouts, what does not fit."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from safetensors.numpy import save
from tolerances import close
from torch_files import Tensor, archive, sequence, state_dict

import adaptive_nets as an
from adaptive_nets.models import model_entry
from adaptive_nets.models.shapes import abstract_variables, flattened_inputs
from adaptive_nets.models.weights.files import (
    default_normalisation,
    load_foreign,
    read_state_dict,
    resolve_normalisation,
)
from adaptive_nets.models.weights.state_dict import convert, convert_all, foreign_shape, match_names
from adaptive_nets.models.weights.wrappers import find_state_dict, unwrap
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

# Names and shapes of the collections' own state dicts: how many, and the beginning of the SHA-256
# of the sorted lines "name (shape)", dots as underscores, lower case, batch counters and trailing
# sizes of 1 left out. Made with torchvision 0.28 and timm 1.0.31.
COLLECTIONS = [
    ("torchvision", "alexnet", 16, "f7aa07ed9c280543"),
    ("torchvision", "vgg11", 22, "f7d46f576f60a36c"),
    ("torchvision", "vgg16_bn", 84, "93c38d076cfc20bb"),
    ("torchvision", "vgg19", 38, "7c7ed2e5bbc60ba7"),
    ("torchvision", "resnet18", 102, "ecd52b4fd357b27f"),
    ("torchvision", "resnet50", 267, "f6c084ea503b418b"),
    pytest.param("torchvision", "resnet152", 777, "f1924a39b3f98c71", marks=pytest.mark.slow),
    ("torchvision", "densenet121", 606, "e9dd18350fca6b20"),
    pytest.param("torchvision", "densenet201", 1006, "e9f7002a290b57bb", marks=pytest.mark.slow),
    ("torchvision", "googlenet", 305, "dd8a12642d2907bd"),
    ("torchvision", "inception_v3", 484, "661a99d2a4e3ae77"),
    ("timm", "inception_v4", 747, "70a3c3d89b7707ca"),
    pytest.param("timm", "inception_resnet_v2", 1102, "cd48f956bfe181eb", marks=pytest.mark.slow),
    ("timm", "seresnet18", 134, "364c1bcf2f0be65e"),
    ("timm", "seresnet50", 331, "2c4f8d0e08446314"),
    ("timm", "legacy_seresnet18", 134, "7ba4cb9137ba780d"),
    ("timm", "legacy_seresnet50", 331, "3864e352cc7b5095"),
    pytest.param("timm", "senet154", 987, "7da65eaf76b2bd29", marks=pytest.mark.slow),
    ("timm", "legacy_seresnext50_32x4d", 331, "03b0cfa966da8337"),
]


def shapes_of(tree, prefix=""):
    flat = {}
    for name, child in tree.items():
        path = f"{prefix}{name}"
        flat |= shapes_of(child, path + "/") if isinstance(child, dict) else {path: child.shape}
    return flat


@pytest.mark.parametrize(("collection", "name", "count", "digest"), COLLECTIONS)
def test_modules_are_called_as_in_the_collections(collection, name, count, digest):
    shapes = shapes_of(abstract_variables(an.create_model(name), model_entry(name).input_shape))
    lines = []
    for path, shape in shapes.items():
        kind, *modules, leaf = path.split("/")
        leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
        foreign = foreign_shape(shape)
        while len(foreign) > 2 and foreign[-1] == 1:
            foreign = foreign[:-1]
        leaf = f"running_{leaf}" if kind == "batch_stats" else leaf
        lines.append(f"{'_'.join([*modules, leaf]).lower()} {foreign}")
    assert len(lines) == count
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16] == digest, collection


class Small(nn.Module):
    """Convolutions, one of them grouped, normalisation, and a dense layer on a flattened map."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 2), padding="VALID", name="conv1")(x)
        x = nn.BatchNorm(use_running_average=True, name="bn1")(x)
        x = nn.relu(x)
        x = nn.Conv(8, (2, 2), padding="VALID", feature_group_count=2, name="layer1_0")(x)
        x = nn.relu(x.reshape(x.shape[0], -1))
        return nn.Dense(5, name="fc")(x)


SHAPE = (6, 5, 3)


@pytest.fixture
def tensors(rng):
    def normal(*size):
        return rng.normal(size=size).astype(np.float32)

    return {
        "conv1.weight": normal(6, 3, 3, 2),
        "conv1.bias": normal(6),
        "bn1.weight": normal(6),
        "bn1.bias": normal(6),
        "bn1.running_mean": normal(6),
        "bn1.running_var": np.abs(normal(6)) + 0.5,
        "layer1.0.weight": normal(8, 3, 2, 2),
        "layer1.0.bias": normal(8),
        "fc.weight": normal(5, 8 * 3 * 3),
        "fc.bias": normal(5),
    }


def channels_first(t, x):
    """The same network as PyTorch computes it, on [N, C, H, W]."""

    def conv(x, name, groups=1):
        y = lax.conv_general_dilated(
            x,
            t[f"{name}.weight"],
            (1, 1),
            "VALID",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )
        return np.asarray(y) + t[f"{name}.bias"][None, :, None, None]

    x = conv(x, "conv1")
    mean, var, scale, bias = (
        t[f"bn1.{leaf}"][None, :, None, None]
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)
    x = np.maximum(conv(x, "layer1.0", groups=2), 0)
    return x.reshape(len(x), -1) @ t["fc.weight"].T + t["fc.bias"][None]


def converted(tensors, model=None, shape=SHAPE):
    variables = abstract_variables(model or Small(), shape)
    return convert_all(
        tensors,
        shapes_of(variables),
        flattened=flattened_inputs(model or Small(), variables, shape),
        source="file",
    )


def test_a_converted_network_computes_the_same(tensors, rng):
    x = rng.normal(size=(4, *SHAPE)).astype(np.float32)
    flat = converted(tensors)
    variables = {"params": {}, "batch_stats": {}}
    for path, leaf in flat.items():
        kind, module, name = path.split("/")
        variables[kind].setdefault(module, {})[name] = leaf
        assert leaf.dtype == np.float32
    expected = channels_first(tensors, x.transpose(0, 3, 1, 2))
    close(Small().apply(variables, x), expected, terms=200)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet5_caffe", {"fc1": (4, 4, 50)}),
        ("vgg11", {"classifier_0": (7, 7, 512)}),
        ("alexnet", {"classifier_1": (6, 6, 256)}),
        ("resnet18", {}),
    ],
)
def test_dense_layers_behind_a_flattened_map_are_found(name, expected):
    model, shape = an.create_model(name), model_entry(name).input_shape
    found = flattened_inputs(model, abstract_variables(model, shape), shape)
    assert found == {f"params/{layer}/kernel": size for layer, size in expected.items()}


def test_a_map_that_is_turned_before_it_is_flattened_needs_no_reordering():
    class Turned(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(2)(x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1))

    assert flattened_inputs(Turned(), abstract_variables(Turned(), SHAPE), SHAPE) == {}


@pytest.mark.parametrize(
    ("dtype", "exact"),
    [(np.float16, True), (ml_dtypes.bfloat16, True), (np.float64, False), (np.int32, True)],
)
def test_other_dtypes_become_float32(dtype, exact):
    tensor = np.array([[1.5, -2.0, 3.1]]).astype(dtype)
    out = convert(tensor, (3, 1))
    assert out is not None
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[:, 0], tensor[0].astype(np.float32))
    assert exact == bool(np.all(out[:, 0].astype(dtype) == tensor[0]))


def test_a_pointwise_convolution_and_a_dense_layer_are_the_same():
    kernel = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(convert(kernel[:, :, None, None], (3, 2)), kernel.T)
    np.testing.assert_array_equal(convert(kernel, (1, 1, 3, 2)), kernel.T[None, None])
    assert convert(kernel, (3, 3, 3, 2)) is None
    assert convert(np.array(["a"]), (1,)) is None


def test_volumes():
    kernel = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    out = convert(kernel, (4, 5, 6, 3, 2))
    assert out is not None
    assert out[1, 2, 3, 2, 1] == kernel[1, 2, 1, 2, 3]


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"conv1.weight": t["conv1.weight"][:, :2]},
         r"conv1\.weight is float32 \(6, 2, 3, 2\) in the file, expected \(6, 3, 3, 2\)"),
        (lambda t: t | {"layer1.1.weight": np.ones(3)}, r"layer1\.1\.weight \(3,\) is left over"),
        (lambda t: without(t, "layer1.0.weight"), r"layer1\.0\.weight \(8, 3, 2, 2\) is missing"),
        (lambda t: without(t, "bn1.running_var"), r"bn1\.running_var \(6,\) is missing"),
        (lambda t: without(without(t, "layer1.0.bias"), "layer1.0.weight"),
         r"layer1\.0\.bias \(8,\) is missing"),
        (lambda t: t | {"fc.weight": t["fc.weight"].T}, r"fc\.weight is float32 \(72, 5\)"),
    ],
)  # fmt: skip
def test_the_first_tensor_that_does_not_fit_is_named_as_in_the_file(tensors, change, message):
    with pytest.raises(UserError, match=f"file does not fit the network: {message}") as error:
        converted(change(tensors))
    assert "\n" not in str(error.value)


def test_names_of_older_and_other_collections():
    paths = ["params/features_denseblock1_denselayer12/norm1/scale", "params/classifier/bias"]
    found = match_names(
        paths, ["features.denseblock1.denselayer12.norm.1.weight", "classifier.bias"]
    )
    assert list(found) == paths
    paths = [f"params/classifier_{i}/kernel" for i in (0, 3, 6)]
    names = ["pre_logits.fc1.weight", "pre_logits.fc2.weight", "head.fc.weight"]
    assert match_names(paths, names) == dict(zip(paths, names, strict=True))
    assert match_names(["params/fc/kernel"], ["last_linear.weight"]) == {
        "params/fc/kernel": "last_linear.weight"
    }


ARRAY = np.ones(2, np.float32)


@pytest.mark.parametrize(
    "tree",
    [
        {"a.weight": ARRAY},
        {"module.a.weight": ARRAY},
        {"state_dict": {"module.a.weight": ARRAY}, "optimizer": {"x": ARRAY}, "epoch": 1},
        {"model": {"state_dict": {"_orig_mod.module.a.weight": ARRAY}}, "best": ARRAY},
        {"net": {"a.weight": ARRAY, "a.num_batches_tracked": np.int64(3), "note": "x"}},
        {"a.weight": ARRAY, "bn.num_batches_tracked": np.array(3)},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(tree):
    assert list(unwrap(find_state_dict(tree, source="file"), source="file")) == ["a.weight"]


@pytest.mark.parametrize("tree", [{}, [], {"epoch": 3}, {"state_dict": {}}, ARRAY])
def test_a_file_without_tensors_is_named(tree):
    with pytest.raises(UserError, match="file has no tensors by name"):
        find_state_dict(tree, source="file")


def lenet_tensors(rng, classes=10):
    sizes = {
        "conv1": (20, 1, 5, 5),
        "conv2": (50, 20, 5, 5),
        "fc1": (500, 800),
        "fc2": (classes, 500),
    }
    tensors = {}
    for name, size in sizes.items():
        tensors[f"{name}.weight"] = rng.normal(size=size).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=size[0]).astype(np.float32)
    return tensors


FORMS = {
    "archive": lambda t: archive({"state_dict": state_dict(t), "epoch": 3}),
    "sequence": lambda t: sequence(state_dict({f"module.{n}": a for n, a in t.items()})),
    "parameters": lambda t: archive({n: Tensor(a, parameter=True) for n, a in t.items()}),
    "safetensors": save,
    "bfloat16": lambda t: save({n: a.astype(ml_dtypes.bfloat16) for n, a in t.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_from_every_kind_of_file(tmp_path, rng, form):
    tensors = lenet_tensors(rng, classes=7)
    path = tmp_path / "weights"
    path.write_bytes(FORMS[form](tensors))
    normalisation = default_normalisation("lenet5_caffe")
    stored = load_foreign(path, "lenet-5-caffe", normalisation=normalisation)
    assert (stored.model, stored.num_classes) == ("lenet5_caffe", 7)
    assert stored.stored_weights == 430_500 - 3 * 500
    kernel = stored.variables["params"]["fc1"]["kernel"]
    assert kernel.dtype == np.float32
    expected = tensors["fc1.weight"].reshape(500, 50, 4, 4)[3, 17, 1, 2]
    assert kernel[(1 * 4 + 2) * 50 + 17, 3] == pytest.approx(expected, rel=1e-2)


def test_our_own_tensors_survive_the_way_through_a_state_dict(tmp_path, rng):
    """A network with batch statistics, written as PyTorch would and read again."""
    model = an.create_model("resnet20_cifar10")
    shapes = abstract_variables(model, (32, 32, 3))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    tensors = {}
    for path, shape in shapes_of(variables).items():
        kind, *modules, leaf = path.split("/")
        node = variables[kind]
        for module in modules:
            node = node[module]
        leaf_name = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
        leaf_name = f"running_{leaf}" if kind == "batch_stats" else leaf_name
        dotted = re.sub(r"_(\d)", r".\1", ".".join(modules))
        array = np.asarray(node[leaf])
        tensors[f"{dotted}.{leaf_name}"] = (
            np.moveaxis(array, (-1, -2), (0, 1)) if len(shape) > 1 else array
        )
    path = tmp_path / "resnet20.th"
    path.write_bytes(sequence({"state_dict": state_dict(tensors), "best_prec1": 91.7}))
    stored = load_foreign(
        path, "resnet20_cifar10", normalisation=default_normalisation("resnet20_cifar10")
    )
    assert jax.tree.structure(stored.variables) == jax.tree.structure(dict(variables))
    jax.tree.map(np.testing.assert_array_equal, stored.variables, dict(variables))


def test_a_file_of_another_depth_is_named(tmp_path, rng):
    path = tmp_path / "weights.pth"
    path.write_bytes(archive(state_dict(lenet_tensors(rng))))
    with pytest.raises(UserError, match=r"does not fit the network: conv1\.weight is float32"):
        load_foreign(
            path, "resnet20_cifar10", normalisation=default_normalisation("resnet20_cifar10")
        )
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "absent.pth")


def test_files_that_are_nothing_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    for content in (b"", b"text", b"\x80\x02garbage", save({})):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pth") as error:
            read_state_dict(path)
        assert "\n" not in str(error.value)


def test_the_normalisation_that_is_customary():
    assert default_normalisation("resnet20_cifar10").mean == (0.485, 0.456, 0.406)
    assert default_normalisation("inception_v3").std == (0.5, 0.5, 0.5)
    assert default_normalisation("lenet5_caffe").mean == (0.0,)
    given = resolve_normalisation(
        "resnet18", (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    ).to_input_normalisation()
    np.testing.assert_allclose(given.offset.ravel(), [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(given.scale.ravel(), [1.0, 0.5, 0.25])


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.1, 0.2, 0.3), None, "only one of --mean and --std is given; expected both or neither"),
        ((0.1,), (0.2, 0.2, 0.2), "--mean has 1 values; expected 3, the channels of resnet18"),
        ((0.1, 0.2, 0.3), (0.2, 0.0, 0.2), "expected positive numbers"),
    ],
)
def test_half_a_normalisation_is_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        resolve_normalisation("resnet18", mean, std)


ROOT = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent")) / "resnet_cifar10"


@pytest.mark.data
@pytest.mark.skipif(not ROOT.is_dir(), reason="needs resnet_cifar10 in $ADAPTIVE_NETS_DATA")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("resnet20_cifar10", "resnet20-12fca82f.th", 97),
        ("resnet32_cifar10", "resnet32-d509ac18.th", 157),
    ],
)
def test_trained_networks_are_read(name, file, count):
    assert len(read_state_dict(ROOT / file)) == count
    stored = load_foreign(ROOT / file, name, normalisation=default_normalisation(name))
    assert stored.num_classes == 10
    other = "resnet32_cifar10" if name.startswith("resnet20") else "resnet20_cifar10"
    with pytest.raises(UserError, match=r"layer1\.3\.\w+\.\w+ \(.*\) is (missing|left over)"):
        load_foreign(ROOT / file, other, normalisation=default_normalisation(other))
