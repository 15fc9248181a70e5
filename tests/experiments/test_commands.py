"""Commands that need no training, called as the console script calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_files
from records_for_tests import made_up, write

from adaptive_nets.models import create_model
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights.stored import InputNormalisation, save_network
from experiments.__main__ import COMMANDS, usage
from experiments.bench.networks import STAGES
from experiments.commands.parsing import parse
from experiments.suite import config as config_lib
from experiments.suite.registry import experiments, load_paper

pytestmark = pytest.mark.usefixtures("toy_paper")


def test_usage_names_every_command(call):
    for arguments in ((), ("--help",), ("help",)):
        code, out, _ = call(*arguments)
        assert code == 0
        assert all(f"  {name}" in out for name in COMMANDS)
    assert usage() in out + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(call, capsys, name):
    try:
        code, out, _ = call(name, "--help")
    except SystemExit as stop:
        code, out = stop.code, capsys.readouterr().out
    assert code == 0
    assert f"adaptive-nets {name}" in out


# Some experiment that stands beside a number of its paper.
MEASURED = next(
    e
    for e in experiments().values()
    if load_paper(e.paper).rows[e.row].values and load_paper(e.paper).rows[e.row].tag == "verified"
)
MISTYPED = MEASURED.id[:-2] + MEASURED.id[-1]


def rows_of(out):
    """The rows of a listing in a pipe."""
    header, *lines = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_list_shows_cells_and_states(call):
    start = MEASURED.id.rsplit(".", 1)[0]
    for pattern in (start, f"{start}*"):
        code, out, _ = call("list", pattern)
        rows = {row["id"]: row for row in rows_of(out)}
        assert code == 0
        assert list(rows) == [name for name in experiments() if name.startswith(start)]
    row = load_paper(MEASURED.paper).rows[MEASURED.row]
    assert rows[MEASURED.id]["cell"] == f"{row.table}: {row.network}, {row.method}"


def test_show_tells_what_would_be_run(call):
    code, out, _ = call("show", MEASURED.id, "--preset", "quick")
    fields = {row["field"]: row["value"] for row in rows_of(out)}
    assert code == 0
    assert fields["command"] == f"adaptive-nets run {MEASURED.id} --preset quick"
    for name, value in load_paper(MEASURED.paper).rows[MEASURED.row].values.items():
        assert fields[f"paper.values.{name}"] == str(value)
    flat = config_lib.flat(config_lib.to_dict(MEASURED.presets["quick"].config))
    assert {f"config.{name}" for name in flat} <= set(fields)
    assert all(sentence in fields["deviations"] for sentence in MEASURED.deviations)


def test_table_is_rendered_from_the_records_of_a_folder(call, tmp_path):
    name, value = next(iter(load_paper(MEASURED.paper).rows[MEASURED.row].values.items()))
    record = made_up(MEASURED.id, **{name.replace(".", "__"): value})
    write(record, tmp_path / "mine")
    code, out, err = call("table", MEASURED.id, "--results", "mine")
    assert code == 0
    (row,) = [r for r in rows_of(out) if (r["id"], r["measure"]) == (MEASURED.id, name)]
    assert (row["paper_value"], row["ours"]) == (str(value), str(value))
    assert (row["difference"], row["status"]) == ("0.0", "reproduced")
    assert row["records"].startswith("preset paper, 1 seed, 60,000 images")
    assert "cited: the paper's own comparison" in err


def test_models_as_json(call):
    code, out, _ = call("models", "lenet5*", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["lenet5_caffe"]["parameters"] == 431_080
    assert rows["lenet5_caffe"]["macs"] == 2_293_000
    assert rows["lenet5_caffe"]["input_shape"] == [28, 28, 1]


def test_models_beside_stated_counts(call):
    code, out, err = call("models", "lenet5_*", "--reference")
    assert code == 0
    assert "lenet5_full_c3_softmax\ttrue\t61706\t61706\tlenet5" in out
    assert "3 of 3 counts are equal" in err
    code, out, _ = call("models", "*aux_head*4a", "--reference", "--json")
    (row,) = json.loads(out)
    assert row["model"] == "googlenet_caffe"
    assert row["counted"] == ["params/aux1/*"]
    assert (row["ours"], row["stated"], row["equal"]) == (3_188_840, 3_188_840, True)


def lenet_state_dict(path, *, classes=10, changes=None):
    rng = np.random.default_rng(3)
    sizes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800)}
    tensors = {}
    for name, size in (sizes | {"fc2": (classes, 500)}).items():
        tensors[f"{name}.weight"] = (rng.normal(size=size) * 0.05).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(size[0], np.float32)
    path.write_bytes(torch_files.archive(torch_files.state_dict(tensors | (changes or {}))))


def test_evaluate_takes_state_dicts(call, tmp_path):
    lenet_state_dict(tmp_path / "lenet.pth")
    command = ("evaluate", "lenet5_caffe", "--weights", "lenet.pth", "--data", "mnist", "--json")
    code, out, _ = call(*command)
    assert code == 0
    report = json.loads(out)
    assert (report["parameters"], report["macs"], report["images"]) == (431_080, 2_293_000, 10_000)
    assert report["normalisation"]["origin"] == "none: pixels from 0 to 1"
    code, out, _ = call(*command, "--mean", "0.1307", "--std", "0.3081")
    assert code == 0
    changed = json.loads(out)
    assert changed["normalisation"]["mean"] == [0.1307]
    assert changed["normalisation"]["std"] == [0.3081]
    assert changed["loss_nats"] != report["loss_nats"]


@pytest.mark.parametrize("fault", ["nan", "overflow"])
def test_evaluate_gives_no_number_that_is_not_finite(call, tmp_path, fault):
    """Neither from weights that are not, nor from finite ones whose products are not."""
    name = "conv2.bias"
    changes = {name: np.full(50, np.nan, np.float32)}
    if fault == "overflow":
        changes = {
            f"{n}.bias": np.full(c, 3e38, np.float32) for n, c in (("fc1", 500), ("fc2", 10))
        }
        changes["fc2.weight"] = np.full((10, 500), 3e38, np.float32)
    lenet_state_dict(tmp_path / "lenet.pth", changes=changes)
    command = ("evaluate", "lenet5_caffe", "--weights", "lenet.pth", "--data", "mnist", "--json")
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert "expected" in err
    assert f"{name} has nan at [0]" in err if fault == "nan" else "gives nll" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20_cifar10"], "does not fit the network: conv1.weight is float32 (20, 1, 5, 5)"),
        (["lenet5_caffe", "--mean", "0.5"], "only one of --mean and --std is given"),
        (["lenet5_caffe", "--mean", "1", "2", "3", "--std", "1", "1", "1"], "--mean has 3 values"),
        (["lenet5_caffe", "--weights", "seven.pth"], "mnist has 10 classes; seven.pth has 7"),
        (["lenet5_caffe", "--weights", "text.pth"], "text.pth cannot be read as safetensors"),
        (
            ["lenet5_caffe", "--weights", "evil.pth"],
            "evil.pth has no tensors by name, and 'a' is an object of",
        ),
        (["lenet5_caffe", "--weights", "cut.pth"], "cut.pth is damaged"),
    ],
)
def test_state_dicts_that_do_not_fit_are_one_line(call, tmp_path, arguments, message):
    lenet_state_dict(tmp_path / "lenet.pth")
    lenet_state_dict(tmp_path / "seven.pth", classes=7)
    (tmp_path / "text.pth").write_text("weights")
    content = torch_files.archive({"a": torch_files.evil("os", "system", "touch touched")})
    (tmp_path / "evil.pth").write_bytes(content)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "lenet.pth").read_bytes()[:-500])
    name, *rest = arguments
    if "--weights" not in rest:
        rest += ["--weights", "lenet.pth"]
    code, _, err = call("evaluate", name, "--data", "mnist", *rest)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "touched").exists()


def test_images_that_do_not_suit_the_network_are_named(call, tmp_path):
    """A network for 32x32 pixels with weights of its own, asked about digits of 28x28."""
    rng = np.random.default_rng(0)
    shapes = abstract_variables(create_model("lenet5"), (32, 32, 1))
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    normalisation = InputNormalisation(
        255.0, np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    )
    save_network(
        tmp_path / "n.safetensors",
        model="lenet5",
        num_classes=10,
        variables=variables,
        normalisation=normalisation,
    )
    code, _, err = call("evaluate", "lenet5", "--weights", "n.safetensors", "--data", "mnist")
    assert code == 2
    assert "--data mnist has images of 28x28x1; lenet5 expects 32x32x1" in err


PUBLISHED = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent")) / "resnet_cifar10"


@pytest.mark.data
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs resnet_cifar10 in $ADAPTIVE_NETS_DATA")
@pytest.mark.parametrize(
    ("name", "file", "error"),
    [
        ("resnet20_cifar10", "resnet20-12fca82f.th", 8.27),
        pytest.param("resnet32_cifar10", "resnet32-d509ac18.th", 7.37, marks=pytest.mark.slow),
    ],
)
def test_published_weights_have_their_published_error(call, name, file, error):
    options = ("--weights", str(PUBLISHED / file), "--data-dir", str(PUBLISHED.parent))
    code, out, _ = call("evaluate", name, *options, "--data", "cifar10", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["images"] == 10_000
    assert round(report["error_percent"], 4) == error


def test_data_list_and_check_of_the_embedded_digits(call):
    code, out, _ = call("data", "list")
    assert code == 0
    assert "60,000 train + 10,000 test" in out
    code, _, err = call("data", "check", "mnist")
    assert code == 0
    assert "train 5421 to 6742 of each class" in err


def test_doctor_finds_what_is_here(call):
    code, out, _ = call("doctor")
    assert code == 0
    assert "4 of kind cpu" in out
    assert "tensorflow" in out


@pytest.mark.parametrize(
    "case", ["lenet-300-100 dense", pytest.param("lenet-300-100 sparse", marks=pytest.mark.slow)]
)
def test_bench_training_writes_its_values(call, tmp_path, monkeypatch, case):
    from experiments.bench import training

    assert list(training.CASES) == ["lenet-300-100 dense", "lenet-300-100 sparse"]
    monkeypatch.setattr(training, "CASES", {case: training.CASES[case]})
    code, out, _ = call("bench", "training", "--rounds", "1", "--steps", "2", "--json", "b.json")
    assert code == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert {v["case"] for v in content["values"]} == {case}
    assert {v["contender"] for v in content["values"]} == {"ours", "bare", "bare, grouped"}
    assert all(v["steps_per_second"] > 0 for v in content["values"])
    assert content["packages"]["jax"] in out or content["devices"]["platform"] == "cpu"


def test_bench_networks(call, tmp_path):
    code, out, _ = call("bench", "networks", "lenet_300_100", "--batch", "2", "--rounds", "2")
    assert code == 0
    assert "lenet_300_100" in out


def test_bench_networks_of_first_outputs_alone(call, tmp_path):
    flags = ("--batch", "1", "--rounds", "0", "--json", "first.json")
    assert call("bench", "networks", "lenet_300_100", *flags)[0] == 0
    (value,) = json.loads((tmp_path / "first.json").read_text())["values"]
    assert value["seconds"] is value["ratio"] is None
    assert set(value["first_output"]) == set(STAGES)
    assert all(seconds >= 0 for seconds in value["first_output"].values())
    assert sum(value["first_output"].values()) > 0


def test_publish_takes_clean_records_only(call, tmp_path, monkeypatch):
    from experiments.commands import publish as command
    from experiments.suite.records import publish

    monkeypatch.setattr(command, "publish", lambda record: publish(record, tmp_path / "published"))
    record = made_up(MEASURED.id, error=1.9)
    write(record, tmp_path / "runs")
    assert call("publish", "runs")[0] == 0
    target = (tmp_path / "published").joinpath(*MEASURED.id.split(".", 1)) / "paper-seed0.json"
    assert json.loads(target.read_text()) == record
    record["code"]["dirty"] = True
    write(record, tmp_path / "runs")
    code, _, err = call("publish", "runs")
    assert code == 2
    assert "with uncommitted changes to" in err
    assert call("publish", "runs", "--allow-dirty")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "command 'lst' is unknown; did you mean 'list'?"),
        (["list", f"{MISTYPED}*"], f"no experiment matches '{MISTYPED}*'; did you mean"),
        (["list", "a", "b"], "b"),
        (["show"], "STR"),
        (["show", MISTYPED], f"experiment {MISTYPED!r} is unknown; did you mean"),
        (["show", MEASURED.id, "--preset", "fast"], "'fast'"),
        (["table", "nothing"], "no experiment matches 'nothing'"),
        (["table", "--results", "nowhere"], "--results is 'nowhere', which is not a folder"),
        (["models", "resnt*"], "no model matches 'resnt*'"),
        (["models", "--jsn"], "--jsn"),
        (["data"], "expects one of list|check|build|import"),
        (["data", "lst"], "has no 'lst'; did you mean 'list'?"),
        (["data", "check", "mnits"], "data set 'mnits' is unknown; did you mean 'mnist'?"),
        (["data", "import", "mnist"], "PATH"),
        (["data", "import", "mnist", "nowhere"], "nowhere does not exist"),
        (["data", "list", "--data-dir", "nowhere"], "--data-dir"),
        (["evaluate", "lenet_300_100", "--weights", "nowhere", "--data", "mnist"], "nowhere"),
        (["evaluate", "lenet_300", "--weights", "x", "--data", "mnist"], "did you mean 'lenet300'"),
        (["evaluate", "lenet_300_100", "--data", "mnist"], "--weights"),
        (["bench", "training", "--rounds", "none"], "--rounds: invalid literal for int()"),
        (["bench", "training", "--rounds", "0"], "--rounds is 0; expected a positive number"),
        (
            ["bench", "kernels", "--kinds", "nothing"],
            "invalid choice 'nothing' for argument '--kinds",
        ),
        (["bench", "kernels", "--kinds"], "--kinds is (); expected at least one kind"),
        (["bench", "kernels", "--batch", "0"], "--batch is (0,); expected each a positive"),
        (["bench", "kernels", "--seconds", "-1"], "--seconds is -1.0; expected a number in (0,"),
        (["bench", "kernels", "LeNet*"], "no layer matches 'LeNet*'"),
        (
            ["bench", "networks", "lenet5", "--rounds", "-1"],
            "--rounds is -1; expected a whole",
        ),
        (["bench", "networks", "nothing*"], "no model matches 'nothing*'"),
        (["publish", "nowhere"], "'nowhere' has no record.json"),
    ],
)
def test_mistakes_are_one_line_and_code_2(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("adaptive-nets: ")
    assert message in err


def test_messages_do_not_depend_on_the_terminals_width(monkeypatch):
    from adaptive_nets.runtime.errors import UserError
    from experiments.commands.models import Models

    for width in ("20", "80", "400"):
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(UserError) as error:
            parse(Models, ["--nonsense", "3"], program="p")
        assert "\n" not in str(error.value)
        assert "--nonsense" in str(error.value)


def test_the_module_and_a_closed_pipe(tmp_path):
    """python -m experiments is the same program, and 'head' may close its output early."""
    command = f"{sys.executable} -m experiments list; echo code $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | head -1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("id")
    assert "Traceback" not in done.stderr


def test_doctor_lists_the_implementations_of_every_operation():
    from experiments.commands.doctor import check_kernels

    state, text = check_kernels()
    assert state == "ok"
    for operation, name in (
        ("masked_conv", "xla, dense, reference"),
        ("perforated_conv", "xla, dense, reference"),
        ("masked_unit", "xla, reference"),
    ):
        assert f"{operation}: {name}" in text
