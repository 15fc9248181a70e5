"""Weights & Biases and the Hugging Face hub from the command line, with fakes of the packages."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from toy_papers import TRAINED

from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights import InputNormalisation, save_network

pytestmark = pytest.mark.usefixtures("toy_paper")


@pytest.fixture
def hub(monkeypatch):
    module = types.ModuleType("huggingface_hub")
    module.made, module.files = [], {}

    class HfApi:
        def create_repo(self, repo_id, *, repo_type, exist_ok):
            module.made.append((repo_id, repo_type, exist_ok))
            return types.SimpleNamespace(repo_id=f"me/{repo_id.split('/')[-1]}")

        def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, repo_type):
            if repo_id.endswith("closed"):
                raise RuntimeError("401\nUnauthorized")
            module.files[path_in_repo] = path_or_fileobj

    module.HfApi = HfApi
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.fixture
def network(tmp_path):
    import jax

    import adaptive_nets as an

    variables = jax.tree.map(
        lambda x: np.full(x.shape, 0.01, np.float32),
        abstract_variables(an.create_model("lenet_300_100"), (28, 28, 1)),
    )
    one = np.ones((1, 1, 1), np.float32)
    path = tmp_path / "n.safetensors"
    save_network(
        path, model="lenet_300_100", num_classes=10, variables=variables,
        normalisation=InputNormalisation(255.0, 0 * one, one), note={"data": "mnist"},
    )  # fmt: skip
    return str(path)


def test_an_export_goes_to_the_hub(call, hub, network):
    code, out, err = call("export", network, "--to", "pytorch", "--hub", "net", "--json")
    assert code == 0, err
    assert json.loads(out)["hub"] == "me/net"
    assert hub.made == [("net", "model", True)]
    assert set(hub.files) == {"lenet_300_100.pth", "lenet_300_100.pth.json", "README.md"}
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: adaptive-nets\n")
    assert 'torch.load("lenet_300_100.pth", weights_only=True)' in card


def test_mistakes_with_the_hub(call, hub, network, tmp_path, monkeypatch):
    for name, message in (
        ("a b", "--hub is 'a b'; expected a repository such as USER/NAME"),
        ("closed", "--hub closed: the hub refuses the files (401 Unauthorized)"),
    ):
        code, _, err = call("export", network, "--to", "pytorch", "--hub", name)
        assert code == 2
        assert message in err
    # What was exported stays here.
    assert (tmp_path / "lenet_300_100.pth").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = call("export", network, "--to", "safetensors", "--hub", "net")
    assert code == 2
    assert "--hub needs the package huggingface_hub, which is not installed" in err
    assert not (tmp_path / "lenet_300_100.safetensors").exists()


def test_a_run_writes_to_wandb_too(call, monkeypatch, tmp_path):
    module = types.ModuleType("wandb")
    module.started, module.logged = [], []

    def init(**options):
        module.started.append(options)
        return types.SimpleNamespace(
            log=lambda values, step: module.logged.append(step), finish=lambda: None
        )

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    flags = ("--preset", "smoke", "--data.source", "embedded", "--data.train-limit", "500")
    flags += ("--data.test-limit", "100", "--out", "run")
    code, _, err = call("run", TRAINED, *flags, "--wandb", "team/p")
    assert code == 0, err
    (started,) = module.started
    assert (started["entity"], started["project"]) == ("team", "p")
    assert started["name"] == f"{TRAINED} smoke seed0"
    assert started["config"]["schedule"]["length"] == "8 steps"
    lines = (tmp_path / "run" / "seed0" / "metrics.jsonl").read_text().splitlines()
    assert module.logged == [json.loads(line)["step"] for line in lines]
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, err = call("run", TRAINED, *flags, "--wandb", "p")
    assert code == 2
    assert "--wandb needs the package wandb, which is not installed" in err
