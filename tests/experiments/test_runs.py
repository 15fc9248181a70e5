"""Experiments from the command line: smoke, record, continuation, and every mistake on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from toy_papers import PRUNED, TRAINED

from adaptive_nets.data import load
from experiments.__main__ import main
from experiments.suite import execution
from experiments.suite.records import read_record
from experiments.suite.registry import experiments

pytestmark = pytest.mark.usefixtures("toy_paper")


@functools.cache
def embedded(name, **options):
    """Data without a root are the same for every run; unpacking them takes as long as training."""
    return load(name, **options)


def load_once(name, **options):
    rooted = options.get("root") is not None
    return load(name, **options) if rooted else embedded(name, **options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, and no data root but what a test names."""
    monkeypatch.setattr(execution, "load", load_once)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def one_line(err):
    """The error message, after making sure that nothing else but announcements was printed."""
    lines = [line for line in err.splitlines() if line.startswith("adaptive-nets: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


# The first digits of the embedded files are enough for a test, and do not take as long.
FEW_DIGITS = (
    "--data.source",
    "embedded",
    "--data.train-limit",
    "4000",
    "--data.test-limit",
    "1000",
)


def quick(*more):
    """Flags of a run that takes a second."""
    return ("--preset", "smoke", "--schedule.length", "8 steps", *FEW_DIGITS, *more)


FREQUENT = quick("--run.checkpoint-every", "2 steps", "--out", "r")


@pytest.fixture(scope="module")
def finished(toy_paper, tmp_path_factory):
    """A folder with a finished run, and what the run printed."""
    folder = tmp_path_factory.mktemp("finished")
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()) as printed,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("ADAPTIVE_NETS_DATA", raising=False)
        patch.setattr(execution, "load", load_once)
        assert main(["run", TRAINED, *FREQUENT]) == 0
    return folder / "r", printed.getvalue()


@pytest.fixture
def run_folder(finished, tmp_path):
    """A copy of the folder of the finished run, `r` for commands."""
    return shutil.copytree(finished[0], tmp_path / "r")


def test_a_run_leaves_a_whole_record(finished):
    folder, out = finished
    record = read_record(folder / "seed0" / "record.json")
    assert record.metric("error").count == 1000
    assert record.dataset["train"] == 4000
    assert not record.dataset["complete"]
    assert record.changed == ["data.test_limit", "data.train_limit"]
    assert len(record.code["commit"] or "0" * 40) == 40
    assert record.devices["count"] == 4
    assert record.config["schedule"]["length"] == "8 steps"
    assert [step for step, _ in record.history["test/error"]] == [4, 8]
    assert record.steps == 8
    assert "reduced" in out


def test_a_run_without_training_needs_no_data(call, tmp_path):
    code, out, err = call("run", PRUNED, "--preset", "paper", "--seeds", "2", "--out", "run")
    assert code == 0, err
    assert "data: none" in err
    records = [read_record(tmp_path / "run" / f"seed{s}" / "record.json") for s in (0, 1)]
    bounds = experiments()[PRUNED].presets["paper"].bounds
    assert [bound.measure for bound in bounds] == ["compression"]
    for record in records:
        assert record.metric("compression").value == pytest.approx(4)
        assert all(b.low <= record.metric(b.measure).value <= b.high for b in bounds)
        assert record.dataset["train"] == record.steps == 0
        assert record.history == {}
        assert record.arrays()["kept"].sum() == 100
    assert (records[0].arrays()["kept"] != records[1].arrays()["kept"]).any()
    header, *lines = (line.split("\t") for line in out.splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    (row,) = [row for row in rows if row["measure"] == "compression"]
    assert (row["measure"], row["paper_value"], row["ours"]) == ("compression", "68.0", "4.0")
    assert (row["difference"], row["status"]) == ("-64.0", "differs")


def test_a_record_is_made_once_and_more_seeds_are_added(call, run_folder):
    first = (run_folder / "seed0" / "record.json").read_text()
    code, _, err = call("run", TRAINED, *quick("--out", "r", "--seeds", "2"))
    assert code == 0
    assert "seed 0: finished earlier" in err
    assert (run_folder / "seed0" / "record.json").read_text() == first
    records = [read_record(run_folder / f"seed{s}" / "record.json") for s in (0, 1)]
    assert records[0].config_hash == records[1].config_hash
    assert records[0].metric("nll").value != records[1].metric("nll").value


def test_bfloat16_and_gradient_accumulation_from_the_command_line(call, tmp_path):
    flags = ("--model.dtype", "bfloat16", "--data.accumulation", "5", "--out", "r")
    assert call("run", TRAINED, *quick(*flags))[0] == 0
    record = read_record(tmp_path / "r" / "seed0" / "record.json")
    limits = ["data.test_limit", "data.train_limit"]
    assert record.changed == ["data.accumulation", *limits, "model.dtype"]


def test_flags_are_refused_where_they_do_not_fit_a_folder(call, run_folder):
    code, _, err = call("run", PRUNED, "--preset", "smoke", "--out", "r")
    assert code == 2
    assert f"--out is r, which holds {TRAINED}; expected" in one_line(err)
    code, _, err = call("run", TRAINED, *quick("--out", "r", "--optimiser.learning-rate", "0.5"))
    assert code == 2
    assert "--optimiser.learning-rate 0.001, this one has 0.5" in one_line(err)
    # How a run is carried out may change.
    assert call("run", TRAINED, *quick("--out", "r", "--run.log-every", "3 steps"))[0] == 0


def test_a_refused_run_leaves_no_claim_on_its_folder(call, tmp_path):
    flags = quick("--out", "r")
    code, _, err = call("run", TRAINED, *flags, "--data.batch-size", "98")
    assert code == 2
    assert "does not divide over 4" in one_line(err)
    assert call("run", PRUNED, "--preset", "smoke", "--out", "r")[0] == 0


def test_a_folder_with_other_files_is_left_alone(call, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("important")
    code, _, err = call("run", TRAINED, *quick("--out", "mine"))
    assert code == 2
    assert "which holds other files (thesis.tex)" in one_line(err)


BAD_FLAGS = {
    "unknown experiment": (["toy.table1.small-traned"], "did you mean 'toy.table1.small-tr"),
    "no experiment": ([], "expects the id of an experiment first"),
    "flag before the id": (["--preset", "smoke", TRAINED], "expects the id of an experiment first"),
    "unknown preset": ([TRAINED, "--preset", "huge"], "--preset is 'huge'; expected one of smoke"),
    "unknown flag": ([TRAINED, "--optimiser.learning-rat", "1"], "--optimiser.learning-rate"),
    "wrong type": ([TRAINED, "--data.batch-size", "many"], "--data.batch-size"),
    "wrong choice": ([TRAINED, "--optimiser.name", "adamm"], "'adamm'"),
    "no value": ([TRAINED, "--data.batch-size"], "--data.batch-size"),
    "wrong length": ([TRAINED, "--schedule.length", "soon"], "--schedule.length is 'soon'"),
    "no seeds": ([TRAINED, "--seeds", "0"], "--seeds is 0; expected a positive number"),
    "batch over devices": ([TRAINED, *quick("--data.batch-size", "98")], "does not divide over 4"),
    "batch over data": ([TRAINED, *quick("--data.batch-size", "4004")], "at most the 4000"),
    "unknown set": ([TRAINED, "--data.name", "mnits"], "data set 'mnits' is unknown; did you mean"),
    "unknown model": ([TRAINED, *quick("--model.name", "lenet_300")], "did you mean 'lenet300'?"),
    "model axis": ([TRAINED, *quick("--mesh.model", "3")], "--mesh.model is 3; expected a divisor"),
    "no data root": ([TRAINED, "--preset", "smoke", "--data-dir", "nowhere"], "nowhere does not"),
    "set elsewhere": ([TRAINED, "--data.name", "cifar10"], "cifar10: nothing found"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_mistakes_are_one_line_and_code_2(call, tmp_path, case):
    arguments, message = BAD_FLAGS[case]
    code, _, err = call("run", *arguments)
    assert code == 2
    assert message in one_line(err)
    assert not list(tmp_path.rglob("record.json"))
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_the_preset_paper_needs_the_complete_set(call, monkeypatch):
    digits = dataclasses.replace(load("mnist", splits=("test",)), complete=False)
    monkeypatch.setattr("experiments.suite.execution.load", lambda name, **options: digits)
    code, _, err = call("run", TRAINED, "--preset", "paper")
    assert code == 2
    assert "--preset paper needs the complete data set 'mnist'" in one_line(err)


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def root(tmp_path):
    """A data root with files of MNIST's names and form, not its content."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 60000), ("t10k", 10000)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", np.zeros((count, 28, 28), np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.zeros(count, np.uint8))
    return tmp_path / "data"


def truncated(folder):
    path = folder / "train-images-idx3-ubyte"
    os.truncate(path, path.stat().st_size - 1000)


DAMAGED_DATA = {
    "missing": (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "t10k-labels-idx1-ubyte"),
    "partial": (truncated, "train-images-idx3-ubyte"),
    "changed": (lambda f: None, "mnist"),
    "no idx file": (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"?" * 99), "train-im"),
    "empty": (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b""), "train-images-idx3"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED_DATA)
@pytest.mark.parametrize("preset", ["smoke", "paper"])
def test_damaged_data_are_named_and_never_passed_over(call, root, tmp_path, case, preset):
    damage, name = DAMAGED_DATA[case]
    damage(root / "mnist")
    code, _, err = call("run", TRAINED, "--preset", preset, "--data-dir", root, "--out", "r")
    assert code == 2
    assert name in one_line(err)
    assert not (tmp_path / "r" / "seed0").exists()


def test_a_data_root_without_permission_is_named(root, tmp_path):
    """In a process that becomes an ordinary user once everything it needs is imported."""
    root.chmod(0)
    script = (
        "import contextlib, io, os, sys\n"
        "sys.path.insert(0, os.environ['CODE'])\n"
        "from experiments.__main__ import main\n"
        "unseen = io.StringIO()\n"
        "with contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen):\n"
        "    main(['data', 'list'])\n"
        "    main(['data', 'list', '--data-dir', '/nowhere'])\n"
        "os.setegid(65534) if os.geteuid() == 0 else None\n"
        "os.seteuid(65534) if os.geteuid() == 0 else None\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    os.chmod(tmp_path, 0o777)
    done = subprocess.run(
        [sys.executable, "-c", script, "data", "list", "--data-dir", str(root)],
        env={**os.environ, "CODE": os.fspath(REPOSITORY)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    root.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert str(root) in one_line(done.stderr)


def test_a_loss_that_is_not_finite_from_the_command_line(call, tmp_path):
    code, _, err = call("run", TRAINED, *quick("--optimiser.learning-rate", "1e30", "--out", "r"))
    assert code == 2
    message = one_line(err)
    assert re.search(r"not finite at step \d+ \(learning rate [0-9.e+]+\)", message)
    assert re.search(r"the state of step \d+ is kept", message)
    assert not (tmp_path / "r" / "seed0" / "record.json").exists()


def test_a_damaged_newest_checkpoint_is_named_and_the_run_goes_on(call, run_folder):
    reference = read_record(run_folder / "seed0" / "record.json")
    (run_folder / "seed0" / "record.json").unlink()
    shutil.rmtree(run_folder / "seed0" / "checkpoints" / "8" / "state")
    code, _, err = call("run", TRAINED, *FREQUENT)
    assert code == 0
    assert "warning: checkpoint of step 8" in err
    assert "using step 6" in err
    again = read_record(run_folder / "seed0" / "record.json")
    assert again.content["metrics"] == reference.content["metrics"]
    assert again.history == reference.history


REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def start(*arguments, path):
    """Starts a run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", "run", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((REPOSITORY, str(path)))},
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def wait_for_checkpoint(folder, step, process, seconds=120):
    """Waits until the run has written a checkpoint at or after a step."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        found = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
        if found and max(found) >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}: {process.communicate()[1]}")


# Long enough to be stopped on the way on any machine.
LONG = ("--preset", "smoke", "--schedule.length", "400 steps", *FEW_DIGITS)
LONG += ("--data.batch-size", "20")
LONG += ("--run.checkpoint-every", "50 steps", "--run.eval-every", "150 steps")


@pytest.fixture(scope="module")
def whole(toy_paper, tmp_path_factory):
    """The record of the long run, not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["run", TRAINED, *LONG, "--out", str(folder / "r")]) == 0
    return read_record(folder / "r" / "seed0" / "record.json")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),  # the same path as SIGTERM
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),  # as an abort in test_loop
    ],
)
def test_a_stopped_run_goes_on_with_the_same_command(
    call, tmp_path, toy_paper, whole, number, code
):
    process = start(TRAINED, *LONG, "--out", "parts", path=toy_paper)
    wait_for_checkpoint(tmp_path / "parts" / "seed0" / "checkpoints", 50, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert re.search(
            r"stopped by SIG\w+ at step \d+, which is saved; the same command resumes", err
        )
    code, _, err = call("run", TRAINED, *LONG, "--out", "parts")
    assert code == 0
    assert re.search(r"resuming from step \d{2,3} of 400", err)
    parts = read_record(tmp_path / "parts" / "seed0" / "record.json")
    assert whole.content["metrics"] == parts.content["metrics"]
    assert whole.history == parts.history


def test_a_folder_in_use_is_named(call, tmp_path):
    from adaptive_nets.runtime.files import lock_directory

    with lock_directory(tmp_path / "r"):
        code, _, err = call("run", TRAINED, *quick("--out", "r"))
    assert code == 2
    assert "r is in use by another run" in one_line(err)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(call, small_disk):
    flags = quick("--run.checkpoint-every", "2 steps", "--out", small_disk / "r")
    code, _, err = call("run", TRAINED, *flags)
    assert code == 2
    message = one_line(err)
    assert "no space left on the disk" in message.lower()
    folder = small_disk / "r" / "seed0"
    steps = [int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]
    assert f"step {max(steps)} is kept" in message
    assert not list((folder / "checkpoints").glob("*tmp*"))
    # Room again: the same command resumes to the end.
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    code, _, err = call("run", TRAINED, *flags)
    assert code == 0
    assert f"resuming from step {max(steps)} of 8" in err


def test_tensorflow_is_not_imported():
    for experiment in experiments().values():
        experiment.load_runner()
    assert "tensorflow" not in sys.modules
