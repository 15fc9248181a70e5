"""bench training --networks: rows, networks with options, and the same networks in PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.bench import torch_peer
from experiments.commands.bench_training import parse_network

KEYS = {
    "network", "contender", "batch", "seconds_per_step", "examples_per_second", "ratio", "rounds",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("nin_cifar10", "nin_cifar10", {}),
        ("preresnet32_cifar10", "resnetv2_32_cifar10", {}),
        ("vgg_cifar10:width=0.25,dropout=false", "vgg_cifar10", {"width": 0.25, "dropout": False}),
        ("resnet20_cifar10:shortcut=B", "resnet20_cifar10", {"shortcut": "B"}),
    ],
)
def test_networks_are_given_with_options(text, name, options):
    assert parse_network(text) == (name, options)


@pytest.mark.parametrize("text", ["vgg_cifar10:width", "vgg_cifar10:=1"])
def test_an_option_without_value_is_named(text):
    with pytest.raises(UserError, match="is not an option; expected OPTION=VALUE"):
        parse_network(text)


@pytest.mark.slow
def test_rows_of_ours_alone(call, tmp_path):
    code, out, err = call(
        "bench", "training", "--networks", "lenet_300_100", "lenet5_caffe_sparse_vd",
        "--batch-size", "8", "--seconds", "0.01", "--json", "steps.json",
    )  # fmt: skip
    assert code == 0, err
    content = json.loads((tmp_path / "steps.json").read_text())
    assert content["benchmark"] == "training steps"
    assert set(content["machine"]) == {"load_at_start", "governor"}
    rows = content["values"]
    assert [row["network"] for row in rows] == ["lenet_300_100", "lenet5_caffe_sparse_vd"]
    for row in rows:
        assert set(row) == KEYS
        assert row["contender"] == "ours"
        assert row["ratio"] == 1
        assert row["examples_per_second"] == pytest.approx(8 / row["seconds_per_step"], rel=1e-3)
    assert "lenet_300_100" in out


ECHO = """
print(json.dumps({"torch": "9.9", "networks": ["lenet_300_100"]}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    assert (job["kind"], job["classes"], job["input"]) == ("training", 10, [4, 28, 28, 1]), job
    print(json.dumps({"seconds": 8.0 if job["layout"] == "channels_last" else 16.0}), flush=True)
"""


def test_the_faster_layout_is_the_contender(call, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport json, sys\n{ECHO}")
    python.chmod(0o755)
    code, _, err = call(
        "bench", "training", "--networks", "lenet_300_100", "lenet5_caffe", "--batch-size", "4",
        "--seconds", "0.01", "--torch-python", str(python), "--json", "steps.json",
    )  # fmt: skip
    assert code == 0, err
    assert "lenet5_caffe: there is no form in PyTorch" in err
    content = json.loads((tmp_path / "steps.json").read_text())
    ours, theirs, alone = content["values"]
    assert theirs["contender"] == "PyTorch, channels last"
    assert (theirs["seconds_per_step"], theirs["examples_per_second"]) == (8.0, 0.5)
    assert theirs["ratio"] == pytest.approx(ours["seconds_per_step"] / 8, rel=0.5)
    assert alone["network"] == "lenet5_caffe"
    assert content["packages"]["torch"] == "9.9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "resnet_32"], "resnet_32"),
        (["--networks", "nin_cifar10:width=2"], "width"),
        (["--networks", "lenet5_caffe", "--batch-size", "0"], "--batch-size"),
        (["--networks", "lenet5_caffe", "--batch-size", "6"], "--batch-size is 6, which does not"),
        (["--networks", "lenet5_caffe", "--torch-python", "/nowhere/python"], "--torch-python"),
    ],
)
def test_a_mistake_is_named(call, arguments, message):
    code, _, err = call("bench", "training", *arguments)
    assert code == 2
    assert message in err


def test_networks_in_pytorch_are_ours(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(Path(torch_peer.__file__).parent))
    import torch_networks  # pyright: ignore[reportMissingImports]

    from adaptive_nets import count_params
    from adaptive_nets.models import model_entry

    for name, build in torch_networks.forms().items():
        entry = model_entry(name)
        network = build(entry.num_classes)
        found = sum(parameter.numel() for parameter in network.parameters())
        # PyTorch's PReLU has one slope where ours has one for each group.
        assert found == pytest.approx(count_params(name), rel=1e-4 if "meta" in name else 0), name
        if entry.input_shape[0] == 32:
            height, width, channels = entry.input_shape
            logits = network(torch.zeros(2, channels, height, width))
            assert logits.shape == (2, entry.num_classes)
