"""Files for other programs: state dicts of PyTorch, programs, files of ours."""

from __future__ import annotations

import io
import os
import pickletools
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaptive_nets as an
from adaptive_nets.models import model_entry
from adaptive_nets.models.shapes import abstract_variables, flatten_paths
from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.models.weights.export import (
    export_program,
    forward_function,
    from_state_dict,
    normalised,
    read_program,
    save_source,
    source_of_run,
    source_of_weights,
    to_state_dict,
    torch_archive,
    torch_collection,
    torch_names,
)
from adaptive_nets.models.weights.files import read_state_dict
from adaptive_nets.models.weights.torch_pickle import read_torch
from adaptive_nets.runtime.errors import UserError

DATA = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent")) / "resnet_cifar10"

# Names in the collections themselves.
NAMES = {
    "alexnet": ("features.10.weight", "classifier.6.bias"),
    "vgg16_bn": ("features.1.running_mean", "classifier.0.weight"),
    "resnet18": ("layer2.0.downsample.1.running_var", "layer4.1.conv2.weight", "fc.bias"),
    "resnet20_cifar10": ("layer3.2.bn2.weight", "linear.weight"),
    "densenet121": (
        "features.conv0.weight", "features.denseblock1.denselayer2.norm1.running_mean",
        "features.transition1.conv.weight", "features.norm5.bias", "classifier.weight",
    ),
    "googlenet": ("conv2.bn.weight", "inception3a.branch2.1.conv.weight", "aux1.conv.conv.weight"),
    "inception_v3": (
        "Conv2d_1a_3x3.bn.running_var", "Mixed_5b.branch5x5_1.conv.weight",
        "Mixed_6b.branch_pool.bn.bias", "AuxLogits.conv0.conv.weight",
    ),
    "inception_v4": ("features.0.conv.weight", "features.10.branch1.2.bn.weight"),
    "inception_resnet_v2": (
        "conv2d_1a.conv.weight", "mixed_7a.branch0.1.bn.weight", "repeat.1.branch2.2.conv.weight",
        "repeat_1.10.branch1.0.conv.weight", "repeat_2.0.conv2d.bias", "block8.conv2d.weight",
    ),
    "seresnet18": ("layer1.0.se.fc1.weight", "layer2.0.downsample.0.weight"),
    "legacy_seresnet50": ("layer0.conv1.weight", "layer1.0.se_module.fc2.bias", "last_linear.bias"),
    "lenet5_caffe": ("conv1.weight", "fc2.bias"),
}  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [pytest.param(n, marks=pytest.mark.slow if "inception" in n or "dense" in n else ())
     for n in NAMES],
)  # fmt: skip
def test_names_of_the_collections(model):
    entry = model_entry(model)
    paths = flatten_paths(abstract_variables(an.create_model(model), entry.input_shape))
    found = torch_names(model, paths)
    assert set(NAMES[model]) <= set(found.values())
    assert len(set(found.values())) == len(paths)
    assert torch_collection(model)


@pytest.mark.parametrize(
    "model", ["fractalnet20_cifar10", "wrn40_2_cifar10", "resnet32_sact_cifar10"]
)
def test_a_family_without_names_is_named(model):
    with pytest.raises(UserError, match=f"network '{model}' has no names in PyTorch's collections"):
        torch_names(model, ["params/conv/kernel"])
    assert torch_collection(model) is None


def test_a_variable_without_equal_is_named():
    with pytest.raises(UserError, match="has the variable params/fc1/theta"):
        torch_names("lenet5_caffe_sparse_vd", ["params/fc1/theta"])


def random_variables(model, rng):
    module, shape = an.create_model(model), model_entry(model).input_shape
    shapes = abstract_variables(module, shape)
    made = jax.tree.map(lambda x: 0.1 * rng.standard_normal(x.shape).astype(np.float32), shapes)
    if "batch_stats" in made:
        made["batch_stats"] = jax.tree.map(lambda x: np.abs(x) + 0.5, made["batch_stats"])
    return module, jax.device_get(made), shape


def test_layouts_of_a_state_dict(rng):
    module, variables, shape = random_variables("lenet5_caffe", rng)
    tensors = to_state_dict("lenet5_caffe", module, variables, shape)
    params = variables["params"]
    np.testing.assert_array_equal(
        tensors["conv2.weight"], params["conv2"]["kernel"].transpose(3, 2, 0, 1)
    )
    # Rows of the first dense layer: position by position here, map by map in PyTorch.
    weight = tensors["fc1.weight"].reshape(500, 50, 4, 4)
    kernel = params["fc1"]["kernel"].reshape(4, 4, 50, 500)
    np.testing.assert_array_equal(weight, kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(tensors["fc2.weight"], params["fc2"]["kernel"].T)


def test_counters_and_pointwise_convolutions(rng):
    module, variables, shape = random_variables("resnet20_cifar10", rng)
    tensors = to_state_dict("resnet20_cifar10", module, variables, shape)
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counters) == sum(name.endswith("running_var") for name in tensors) == 19
    assert all(tensors[n].dtype == np.int64 and tensors[n].shape == () for n in counters)
    module, variables, shape = random_variables("seresnet18", rng)
    tensors = to_state_dict("seresnet18", module, variables, shape)
    assert tensors["layer1.0.se.fc1.weight"].shape == (8, 64, 1, 1)
    assert tensors["fc.weight"].shape == (1000, 512)


@pytest.mark.parametrize("model", ["resnet20_cifar10", "lenet5_caffe", "lenet_300_100"])
def test_a_state_dict_comes_back(tmp_path, rng, model):
    module, variables, shape = random_variables(model, rng)
    tensors = to_state_dict(model, module, variables, shape)
    (tmp_path / "a.pth").write_bytes(torch_archive(tensors))
    read = read_state_dict(tmp_path / "a.pth")
    back = from_state_dict(read, module, variables, shape, source="a.pth")
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables))
    # As any state dict of another tool.
    module, variables, _ = an.models.weights.load_weights(tmp_path / "a.pth", model)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_a_state_dict_that_does_not_fit_is_named(rng):
    module, variables, shape = random_variables("lenet5_caffe", rng)
    tensors = to_state_dict("lenet5_caffe", module, variables, shape)
    del tensors["fc1.bias"]
    with pytest.raises(UserError, match=r"a\.pth does not fit the network: fc1\.bias"):
        from_state_dict(tensors, module, variables, shape, source="a.pth")


ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.zeros((0, 3), np.float64),
    "c.num": np.asarray(3, np.int64),
    "transposed": np.arange(12, dtype=np.float16).reshape(3, 4).T,
    "é": np.asarray([True, False]),
    "one": np.ones((1, 2, 1), np.uint8),
}


def test_an_archive_of_every_kind_of_tensor(tmp_path):
    (tmp_path / "a.pth").write_bytes(torch_archive(ARRAYS))
    found = read_torch(tmp_path / "a.pth")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_an_archive_has_the_parts_that_pytorch_expects():
    content = torch_archive(ARRAYS)
    assert content == torch_archive(ARRAYS)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        assert names[0] == "network/data.pkl"
        assert {"network/version", "network/byteorder", "network/data/0"} <= set(names)
        assert archive.read("network/version") == b"3\n"
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            size = int.from_bytes(content[info.header_offset + 26 :][:2], "little")
            extra = int.from_bytes(content[info.header_offset + 28 :][:2], "little")
            assert (info.header_offset + 30 + size + extra) % 64 == 0
        program = archive.read("network/data.pkl")
    # The names and instructions that torch.load(weights_only=True) allows.
    instructions = list(pickletools.genops(program))
    assert {argument for code, argument, _ in instructions if code.name == "GLOBAL"} == {
        "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage",
        "torch DoubleStorage", "torch LongStorage", "torch HalfStorage", "torch BoolStorage",
        "torch ByteStorage",
    }  # fmt: skip
    assert {code.name for code, _, _ in instructions} <= {
        "PROTO", "GLOBAL", "EMPTY_TUPLE", "REDUCE", "MARK", "BINUNICODE", "BININT", "TUPLE",
        "BINPERSID", "NEWFALSE", "SETITEMS", "STOP",
    }  # fmt: skip
    with pytest.raises(ValueError, match="tensor 'x' has the dtype complex64"):
        torch_archive({"x": np.zeros(2, np.complex64)})


def test_pytorch_loads_the_archive(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "a.pth").write_bytes(torch_archive(ARRAYS))
    for options in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "a.pth", weights_only=True, **options)
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name].numpy(), array)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs resnet_cifar10 in $ADAPTIVE_NETS_DATA")
def test_names_and_tensors_are_those_of_the_published_file():
    path = DATA / "resnet20-12fca82f.th"
    published = {n.removeprefix("module."): t for n, t in read_state_dict(path).items()}
    source = source_of_weights(path, "resnet20_cifar10")
    tensors = to_state_dict(source.model, source.module, source.variables, source.input_shape)
    kept = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    assert {n for n in published if not n.endswith("num_batches_tracked")} == set(kept)
    for name, tensor in kept.items():
        np.testing.assert_array_equal(tensor, np.asarray(published[name]))


@pytest.mark.parametrize("per_image", [False, True])
def test_normalisation_in_a_program(rng, per_image):
    offset = rng.random((1, 1, 3)).astype(np.float32)
    normalisation = InputNormalisation(255.0, offset, 2 * np.ones_like(offset), per_image)
    pixels = rng.integers(0, 256, (3, 5, 4, 3), np.uint8)
    pixels[1] = 7
    found = jax.jit(lambda x: normalised(x, normalisation))(pixels.astype(np.float32))
    np.testing.assert_allclose(found, normalisation.apply(pixels), rtol=1e-5, atol=1e-5)


def stored(path, model, rng, *, data=None, **overrides):
    entry, module = model_entry(model), an.create_model(model, **overrides)
    shapes = abstract_variables(module, entry.input_shape)
    variables = jax.tree.map(
        lambda x: 0.2 * rng.standard_normal(x.shape).astype(np.float32), shapes
    )
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(lambda x: abs(x) + 0.5, variables["batch_stats"])
    channels = entry.input_shape[-1]
    save_network(
        path, model=model, num_classes=entry.num_classes, variables=jax.device_get(variables),
        normalisation=InputNormalisation(
            255.0, np.full((1, 1, channels), 0.5, np.float32), np.ones((1, 1, channels), np.float32)
        ),
        note={"overrides": overrides, "data": data} if data else {"overrides": overrides},
    )  # fmt: skip
    return path


# A process that has none of our packages, nor Flax.
STRANGER = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("adaptive_nets", "kernels", "experiments", "flax"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
for i in range(2):
    np.save(f"{sys.argv[2]}/out{i}.npy", program.call(np.load(f"{sys.argv[2]}/in{i}.npy")))
"""
SMALL = {"stage_sizes": [2, 2, 2], "widths": [4, 4, 4]}


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("lenet_300_100", {}),
        pytest.param("resnetv1_20_sact_cifar10", SMALL, marks=pytest.mark.slow),
        pytest.param("resnetv1_20_pact_cifar10", SMALL, marks=pytest.mark.slow),
        pytest.param("resnetv1_20_act_cifar10", SMALL, marks=pytest.mark.slow),
    ],
)
def test_a_program_gives_the_same_logits_without_this_package(tmp_path, rng, model, overrides):
    pytest.importorskip("flatbuffers")
    source = source_of_run(stored(tmp_path / "n.safetensors", model, rng, **overrides))
    program = export_program(forward_function(source.module, source.variables), source.input_shape)
    assert (program.batch, program.platforms) == (None, ("cpu", "cuda", "tpu"))
    (tmp_path / "n.stablehlo").write_bytes(program.content)
    images = [rng.standard_normal((n, *source.input_shape)).astype(np.float32) for n in (1, 3)]
    for i, x in enumerate(images):
        np.save(tmp_path / f"in{i}.npy", x)
    subprocess.run(
        [sys.executable, "-c", STRANGER, tmp_path / "n.stablehlo", tmp_path], check=True,
        cwd=tmp_path, env=os.environ | {"XLA_FLAGS": ""},
    )  # fmt: skip
    forward = jax.jit(lambda x: source.module.apply(source.variables, x, train=False))
    for i, x in enumerate(images):
        expected = np.asarray(forward(x))
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(np.load(tmp_path / f"out{i}.npy"), expected, atol=1e-5 * scale)


def test_a_program_is_plain_stablehlo(rng):
    """No call of a library of ours: only the checks of sizes that JAX itself adds."""
    pytest.importorskip("flatbuffers")
    module, variables, shape = random_variables("lenet5_caffe", rng)
    program = export_program(forward_function(module, variables), shape)
    read = read_program(program.content, source="file")
    targets = set(re.findall(r"custom_call @?(\w+)", read.mlir_module()))
    assert targets <= {"shape_assertion"}
    assert "stablehlo.convolution" in read.mlir_module() or "dynamic_conv" in read.mlir_module()
    fixed = export_program(forward_function(module, variables), shape, batch=2)
    text = read_program(fixed.content, source="file").mlir_module()
    assert "custom_call" not in text
    assert read_program(fixed.content, source="file").call(jnp.zeros((2, *shape))).shape == (2, 10)


def test_a_function_without_a_program_for_any_batch():
    pytest.importorskip("flatbuffers")

    def forward(x):
        return jnp.concatenate([x.sum((1, 2))] * int(x.shape[0]))

    with pytest.raises(UserError, match=r"no program for any batch \(.*; --batch N fixes its size"):
        export_program(forward, (2, 2, 3))
    program = export_program(forward, (2, 2, 3), fixed_batch=2)
    assert program.batch == 2
    assert program.reason
    with pytest.raises(UserError, match="file is damaged or no program"):
        read_program(program.content[:40], source="file")


def test_without_flatbuffers_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UserError, match="needs the package flatbuffers"):
        export_program(lambda x: x, (2, 2, 3))


def test_our_own_file_is_self_contained(tmp_path, rng):
    source = source_of_run(stored(tmp_path / "a.safetensors", "lenet5_caffe", rng, data="mnist"))
    (tmp_path / "alone").mkdir()
    save_source(source, tmp_path / "alone" / "b.safetensors")
    _, variables, config = an.load_run(tmp_path / "alone" / "b.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, source.variables)
    assert config["class_names"] == tuple("0123456789")
    assert config["data"]["name"] == "mnist"


def test_a_mostly_empty_network_is_stored_sparse(tmp_path, rng):
    source = source_of_run(stored(tmp_path / "a.safetensors", "lenet_300_100", rng, data="mnist"))
    for layer in source.variables["params"].values():
        layer["kernel"] = np.where(rng.random(layer["kernel"].shape) < 0.02, layer["kernel"], 0)
    size = save_source(source, tmp_path / "b.safetensors")
    assert size < 0.15 * (tmp_path / "a.safetensors").stat().st_size
    jax.tree.map(
        np.testing.assert_array_equal, an.load_run(tmp_path / "b.safetensors")[1], source.variables
    )
