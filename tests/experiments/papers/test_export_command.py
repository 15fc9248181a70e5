"""adaptive-nets export: files of trained networks, read back and compared."""

from __future__ import annotations

import hashlib
import json
import sys

import jax
import numpy as np
import pytest
import torch_files

import adaptive_nets as an
from adaptive_nets.models import model_entry
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.models.weights.export import to_state_dict
from adaptive_nets.models.weights.files import read_state_dict

pytestmark = pytest.mark.usefixtures("toy_paper")


def write_network(path, model="lenet_300_100", *, data="mnist", **overrides):
    rng = np.random.default_rng(3)
    entry, module = model_entry(model), an.create_model(model, **overrides)
    variables = jax.tree.map(
        lambda x: 0.1 * rng.standard_normal(x.shape).astype(np.float32),
        abstract_variables(module, entry.input_shape),
    )
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(lambda x: abs(x) + 0.5, variables["batch_stats"])
    offset = np.full((1, 1, entry.input_shape[-1]), 0.25, np.float32)
    save_network(
        path, model=model, num_classes=entry.num_classes, variables=jax.device_get(variables),
        normalisation=InputNormalisation(255.0, offset, 2 * np.ones_like(offset)),
        note={"data": data, "overrides": overrides},
    )  # fmt: skip
    return path


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path / "network.safetensors")


def fields_of(out):
    return dict(line.split("\t") for line in out.splitlines())


def test_safetensors(call, network, tmp_path):
    code, out, err = call("export", str(network), "--to", "safetensors", "--out", "a/b.safetensors")
    assert code == 0, err
    fields = fields_of(out)
    assert (fields["to"], fields["model"], fields["file"]) == (
        "safetensors", "lenet_300_100", "a/b.safetensors",
    )  # fmt: skip
    assert float(fields["max_difference"]) == 0
    _, variables, config = an.load_run(tmp_path / "a" / "b.safetensors")
    expected = an.load_run(network)
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])
    assert config["class_names"] == expected[2]["class_names"]
    described = json.loads((tmp_path / "a" / "b.safetensors.json").read_text())
    content = (tmp_path / "a" / "b.safetensors").read_bytes()
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    assert described["input"]["shape"] == [28, 28, 1]
    # Nothing else is left.
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_pytorch(call, network, tmp_path):
    code, out, err = call("export", str(network), "--to", "pytorch", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["file"] == "lenet_300_100.pth"
    assert report["max_difference"] <= 1e-5
    tensors = read_state_dict(tmp_path / "lenet_300_100.pth")
    params = an.load_run(network)[1]["params"]
    assert set(tensors) == {f"{n}.{leaf}" for n in params for leaf in ("weight", "bias")}
    name = next(iter(params))
    np.testing.assert_array_equal(tensors[f"{name}.weight"], params[name]["kernel"].T)
    described = json.loads((tmp_path / "lenet_300_100.pth.json").read_text())
    assert described["input"]["layout"] == "NCHW"
    assert described["normalisation"]["pixel_scale"] == 255


def test_weights_of_another_tool(call, tmp_path):
    source = write_network(tmp_path / "n.safetensors", "lenet5_caffe")
    module, variables, config = an.load_run(source)
    tensors = to_state_dict("lenet5_caffe", module, variables, config["input_shape"])
    (tmp_path / "w.pth").write_bytes(torch_files.archive(torch_files.state_dict(tensors)))
    named = ("--model", "lenet5_caffe", "--weights", "w.pth")
    code, _, err = call("export", *named, "--to", "safetensors", "--mean", "0.3", "--std", "0.5")
    assert code == 0, err
    _, found, config = an.load_run(tmp_path / "lenet5_caffe.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found, dict(variables))
    np.testing.assert_allclose(config["normalisation"]["offset"].ravel(), [0.3], rtol=1e-6)


def test_stablehlo(call, network, tmp_path):
    pytest.importorskip("flatbuffers")
    from jax import export

    model, variables, config = an.load_run(network)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    images = an.prepare_images(pixels, config)
    expected = np.asarray(model.apply(variables, images, train=False))
    code, out, err = call("export", str(network), "--to", "stablehlo")
    assert code == 0, err
    fields = fields_of(out)
    assert (fields["batch"], fields["input"]) == ("dynamic", "normalised")
    assert float(fields["max_difference"]) <= 1e-5 * max(1, np.abs(expected).max())
    program = export.deserialize(bytearray((tmp_path / fields["file"]).read_bytes()))
    np.testing.assert_allclose(program.call(images), expected, atol=2e-5)
    np.testing.assert_allclose(program.call(images[:1]), expected[:1], atol=2e-5)
    flags = ("--pixels", "--batch", "5", "--out", "p.bin", "--json")
    report = json.loads(call("export", str(network), "--to", "stablehlo", *flags)[1])
    assert (report["batch"], report["input"]) == (5, "pixels")
    program = export.deserialize(bytearray((tmp_path / "p.bin").read_bytes()))
    np.testing.assert_allclose(program.call(pixels.astype(np.float32)), expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["act", "sact", "pact"])
def test_networks_of_adaptive_depth(call, tmp_path, rule):
    name = f"resnetv1_20_{rule}_cifar10"
    small = {"stage_sizes": [2, 2, 2], "widths": [4, 4, 4]}
    network = write_network(tmp_path / "n.safetensors", name, data="cifar10", **small)
    code, out, err = call("export", str(network), "--to", "safetensors", "--json")
    assert code == 0, err
    assert json.loads(out)["max_difference"] == 0
    described = json.loads((tmp_path / f"{name}.safetensors.json").read_text())
    assert described["halting"]["rule"] == rule
    assert described["halting"]["execution"] == "dense"
    if "flatbuffers" in sys.modules or pytest.importorskip("flatbuffers"):
        code, out, err = call("export", str(network), "--to", "stablehlo", "--json")
        assert code == 0, err
        assert json.loads(out)["batch"] == "dynamic"


def test_pytorch_has_no_networks_of_adaptive_depth(call, tmp_path):
    small = {"stage_sizes": [1, 1, 1], "widths": [4, 4, 4]}
    network = write_network(
        tmp_path / "n.safetensors", "resnetv1_20_sact_cifar10", data="cifar10", **small
    )
    code, out, err = call("export", str(network), "--to", "pytorch")
    assert (code, out) == (2, "")
    assert "halts by 'sact', which no PyTorch collection has; expected --to safetensors or" in err
    assert not (tmp_path / "resnetv1_20_sact_cifar10.pth").exists()


def test_logits_that_differ_leave_the_earlier_file(call, network, tmp_path, monkeypatch):
    from experiments.commands import export as command

    (tmp_path / "lenet_300_100.pth").write_text("earlier")
    monkeypatch.setattr(command, "TOLERANCE", -1.0)
    code, out, err = call("export", str(network), "--to", "pytorch")
    assert (code, out) == (2, "")
    assert "nothing is written: logits of the exported file differ by 0 from" in err
    assert (tmp_path / "lenet_300_100.pth").read_text() == "earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "lenet_300_100.pth", "network.safetensors",
    ]  # fmt: skip


MISTAKES = {
    "nothing": ((), "expects either DIR or --model NAME --weights FILE"),
    "two": (("NETWORK", "--model", "lenet5"), "expects either DIR or --model"),
    "half": (("--model", "lenet5"), "--weights FILE is missing"),
    "target": (("NETWORK", "--to", "onnx"), "--to"),
    "no run": (("nowhere", "--to", "pytorch"), "no run in nowhere: it does not exist"),
    "no weights": (("run", "--to", "stablehlo"), "no network in run: the experiment of this run "
                   "exports none; choose a run that trains one"),
    "not finished": (("begun", "--to", "stablehlo"), "the run in begun is not finished; the comm"),
    "batch": (("NETWORK", "--to", "stablehlo", "--batch", "many"), "--batch is 'many'; expected d"),
    "no images": (("NETWORK", "--to", "stablehlo", "--batch", "0"), "--batch is '0'; expected dyn"),
    "batch of weights": (("NETWORK", "--to", "pytorch", "--batch", "2"), "--batch is for --to sta"),
    "pixels": (("NETWORK", "--to", "pytorch", "--pixels"), "--pixels is for --to stablehlo"),
    "mean": (("NETWORK", "--mean", "0", "--std", "1"), "--mean and --std are for --weights"),
    "folder": (("NETWORK", "--out", "."), "--out is '.', which is a folder; expected a file"),
    "itself": (("NETWORK", "--out", "NETWORK"), "the file that is exported; expected another"),
    "device": (("NETWORK", "--out", "/dev/null"), "--out is '/dev/null'; expected a file, which"),
    "foreign": (("text.txt",), "text.txt was not exported by a run"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_nothing_is_written(call, network, tmp_path, case):
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "run" / "seed0").mkdir(parents=True)
    (tmp_path / "run" / "seed0" / "record.json").write_text("{}")
    (tmp_path / "begun" / "seed0" / "checkpoints").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    arguments, message = MISTAKES[case]
    code, out, err = call("export", *(str(network) if a == "NETWORK" else a for a in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("model", ["hypernet_mnist"])
def test_a_family_without_names_is_refused(call, tmp_path, model):
    network = write_network(tmp_path / "n.safetensors", model)
    code, _, err = call("export", str(network), "--to", "pytorch")
    assert code == 2
    assert f"network '{model}' has no names in PyTorch's collections; expected one of" in err
