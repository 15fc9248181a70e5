"""Sweeps: a run for each combination of values, in turn or as an array of a cluster."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest
from toy_papers import PRUNED, TRAINED

from experiments.__main__ import main
from experiments.commands.sweep import run_words
from experiments.launch.combinations import combinations, folder_name, parse_values
from experiments.suite.registry import find_experiment

pytestmark = pytest.mark.usefixtures("toy_paper")

KEEP = ("--values", "pruning.keep=0.5,0.25", "--preset", "smoke")
RATES = ("--values", "optimiser.learning_rate=0.1,0.01")
BATCHES = ("--values", "data.batch_size=32,64")
SMALL = ("--data.batch-size", "96")


def rows_of(out):
    header, *lines = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_every_combination_is_a_run_in_a_folder_of_its_own(call, tmp_path):
    command = ("sweep", PRUNED, *KEEP, "--seeds", "2", "--out", "runs/mine")
    code, out, err = call(*command)
    assert code == 0, err
    rows = rows_of(out)
    assert [row["pruning.keep"] for row in rows] == ["0.5", "0.25"]
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert [float(row["compression"]) for row in rows] == pytest.approx([2, 4], rel=0.1)
    for keep in ("0.5", "0.25"):
        folder = tmp_path / "runs" / "mine" / f"pruning.keep={keep}"
        records = [json.loads((folder / f"seed{s}" / "record.json").read_text()) for s in (0, 1)]
        assert [r["config"]["pruning"]["keep"] for r in records] == [float(keep)] * 2
    # Again: nothing runs, and the summary is the same.
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")}
    code, again, err = call(*command, "--json")
    assert code == 0
    assert err.count("finished earlier") == 2
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")} == times
    entries = json.loads(again)
    assert [e["values"] for e in entries] == [{"pruning.keep": "0.5"}, {"pruning.keep": "0.25"}]
    assert entries[0]["measures"]["compression"]["seeds"] == 2
    assert entries[0]["measures"]["compression"]["mean"] == pytest.approx(2, rel=0.1)
    # A lost seed is measured again, the others are not.
    lost = tmp_path / "runs" / "mine" / "pruning.keep=0.25" / "seed1" / "record.json"
    lost.unlink()
    assert call(*command)[0] == 0
    assert lost.exists()
    changed = [p for p, t in times.items() if p.stat().st_mtime_ns != t]
    assert changed == [lost]


def test_a_sweep_without_out_is_beside_the_runs_and_a_dry_run_writes_nothing(call, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("sweep", PRUNED, *KEEP, "--dry-run")
    assert code == 0, err
    rows = rows_of(out)
    assert [row["state"] for row in rows] == ["new", "new"]
    assert rows[1]["folder"] == f"runs/{PRUNED}/sweep-smoke/pruning.keep=0.25"
    assert sorted(tmp_path.rglob("*")) == before
    # The command of a row is the run itself.
    words = shlex.split(rows[1]["command"])
    assert words[0] == "adaptive-nets"
    assert call(*words[1:])[0] == 0
    rows = json.loads(call("sweep", PRUNED, *KEEP, "--dry-run", "--json")[1])
    assert [row["state"] for row in rows] == ["new", "finished"]


def test_a_run_that_fails_does_not_stop_the_others(call, tmp_path):
    folder = tmp_path / "s" / "pruning.keep=0.5"
    folder.mkdir(parents=True)
    (folder / "foreign.txt").write_text("x")
    code, out, err = call("sweep", PRUNED, *KEEP, "--out", "s")
    assert code == 2
    assert [row["state"] for row in rows_of(out)] == ["failed", "finished"]
    assert "adaptive-nets: pruning.keep=0.5: --out is s/pruning.keep=0.5, which holds other" in err
    assert "1 of 2 runs failed" in err


def test_an_interrupted_sweep_resumes(call, tmp_path, monkeypatch):
    import signal

    from adaptive_nets.runtime.interrupt import Interrupted
    from experiments.suite import execution

    real, started = execution.execute, []

    def stop_at_the_second(experiment, **options):
        started.append(options["out"].name)
        if len(started) == 2:
            raise Interrupted(signal.SIGINT, 3)
        return real(experiment, **options)

    monkeypatch.setattr(execution, "execute", stop_at_the_second)
    with pytest.raises(SystemExit) as stop:
        call("sweep", PRUNED, *KEEP, "--out", "s")
    assert stop.value.code == 130
    monkeypatch.setattr(execution, "execute", real)
    code, out, err = call("sweep", PRUNED, *KEEP, "--out", "s")
    assert code == 0
    assert err.count("finished earlier") == 1
    assert started == ["pruning.keep=0.5", "pruning.keep=0.25"]
    assert [row["state"] for row in rows_of(out)] == ["finished"] * 2


@pytest.mark.slow
def test_a_sweep_of_trainings(call):
    flags = ("--preset", "smoke", "--data.source", "embedded", "--data.train-limit", "500")
    flags += ("--data.test-limit", "200", "--out", "s")
    code, out, err = call("sweep", TRAINED, *RATES, *BATCHES, *flags)
    assert code == 0, err
    rows = rows_of(out)
    assert [(r["optimiser.learning_rate"], r["data.batch_size"]) for r in rows] == [
        ("0.1", "32"), ("0.1", "64"), ("0.01", "32"), ("0.01", "64"),
    ]  # fmt: skip
    assert all(0 <= float(row["error"]) <= 100 for row in rows)


def config():
    return find_experiment(TRAINED).presets["smoke"].config


def test_products_flags_and_folders():
    values = parse_values(
        ["data.flip=true,false", "--optimiser.learning-rate=1e-3", "data.crop_area=0.1 1, 0.5 1"],
        config(),
    )
    assert values == {
        "data.flip": ["true", "false"],
        "optimiser.learning_rate": ["1e-3"],
        "data.crop_area": ["0.1 1", "0.5 1"],
    }
    made = combinations(values, config())
    assert len(made) == 4
    assert made[1].flags == (
        "--data.flip", "--optimiser.learning-rate", "1e-3", "--data.crop-area", "0.5", "1",
    )  # fmt: skip
    assert made[2].flags[0] == "--data.no-flip"
    assert made[3].folder == ("data.flip=false,optimiser.learning_rate=1e-3,data.crop_area=0.5-1")
    assert len({c.folder for c in made}) == 4
    # Values that a folder's name cannot tell apart.
    made = combinations({"schedule.length": ["2 steps", "2/steps"]}, config())
    assert len({c.folder for c in made}) == 2
    assert all("/" not in c.folder for c in made)
    assert len(folder_name({f"a.b{i}": "x" * 50 for i in range(9)})) <= 180


def test_the_words_that_all_runs_share():
    words = ["id", "--values", "a=1", "--preset", "smoke", "--out=x", "--slurm", "--mesh.model",
             "2", "--dry_run", "--values=b=2", "--out", "y", "--json"]  # fmt: skip
    assert run_words(words) == ["id", "--preset", "smoke", "--mesh.model", "2"]


def in_bash(tmp_path, script, functions, **environment):
    (tmp_path / "script").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)
    note = 'note() { printf "%s\\0" "$@" >> record; }; export -f note\n'
    (tmp_path / "record").write_text("")
    subprocess.run(
        ["bash", "-c", f"{note}{functions}\n. ./script"], cwd=tmp_path, check=True,
        env={"PATH": os.defpath, **environment}, timeout=20,
    )  # fmt: skip
    return (tmp_path / "record").read_bytes().decode().split("\0")[:-1]


def test_a_slurm_array_of_combinations(call, tmp_path):
    code, script, err = call(
        "sweep", TRAINED, *RATES, "--values", "schedule.length=9 steps,2 epochs", *SMALL,
        "--slurm", "--out", "a b", "--job.nodes", "2", "--job.at-once", "3",
    )  # fmt: skip
    assert code == 0, err
    assert "#SBATCH --array=0-3%3\n" in script
    assert "#SBATCH --nodes=2\n" in script
    assert "-%A-%a.log\n" in script
    functions = 'cd() { :; }; srun() { shift; note "$@"; }'
    found = in_bash(tmp_path, script, functions, SLURM_ARRAY_TASK_ID="2")
    assert found == [
        ".venv/bin/adaptive-nets", "run", TRAINED, *SMALL, "--optimiser.learning-rate", "0.01",
        "--schedule.length", "9 steps", "--out",
        "a b/optimiser.learning_rate=0.01,schedule.length=9-steps",
        "--distributed.cluster", "slurm",
    ]  # fmt: skip
    with pytest.raises(subprocess.CalledProcessError):
        in_bash(tmp_path, script, functions, SLURM_ARRAY_TASK_ID="4")


def test_an_indexed_jobset_of_combinations(call, tmp_path):
    yaml = pytest.importorskip("yaml")
    code, text, err = call(
        "sweep", TRAINED, *RATES, *SMALL, "--jobset", "--out", "/shared/s", "--job.nodes", "2",
        "--schedule.length", "$(HOME) steps" if False else "9 steps",
    )  # fmt: skip
    assert code == 0, err
    manifest = yaml.safe_load(text)
    (job,) = manifest["spec"]["replicatedJobs"]
    assert job["replicas"] == 2
    spec = job["template"]["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 2)
    container = spec["template"]["spec"]["containers"][0]
    (variable,) = container["env"]
    assert variable["name"] == "JOB_INDEX"
    assert "job-index" in variable["valueFrom"]["fieldRef"]["fieldPath"]
    found = in_bash(
        tmp_path, container["args"][0], 'exec() { note "$@"; }', JOB_INDEX="1",
        JOB_COMPLETION_INDEX="0",
    )  # fmt: skip
    name = manifest["metadata"]["name"]
    assert found == [
        "adaptive-nets", "run", TRAINED, *SMALL, "--schedule.length", "9 steps",
        "--optimiser.learning-rate", "0.01", "--out", "/shared/s/optimiser.learning_rate=0.01",
        "--distributed.coordinator", f"{name}-workers-1-0.{name}:12345",
        "--distributed.num-processes", "2", "--distributed.process-id", "0",
    ]  # fmt: skip


def test_dry_runs_of_arrays(call, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for kind, submit in (("--slurm", "sbatch FILE"), ("--jobset", "kubectl apply -f FILE")):
        code, out, err = call("sweep", TRAINED, *RATES, *SMALL, kind, "--dry-run")
        assert code == 0, err
        fields = dict(line.split("\t") for line in out.splitlines())
        assert (fields["jobs"], fields["submit"]) == ("2", submit)
        assert "--optimiser.learning-rate 0.01 --out " in fields["job_1"]
        assert fields["job_1"].endswith("learning_rate=0.01 (new)")
        assert len(fields["name"]) <= 47
    assert sorted(tmp_path.rglob("*")) == before


RATE = "optimiser.learning_rate"
MISTAKES = {
    "no id": ((), "expects the id of an experiment first"),
    "no values": ((TRAINED,), "--values is missing; expected FIELD=VALUE,VALUE"),
    "no field": ((TRAINED, "--values", "0.1,0.2"), "--values is '0.1,0.2'; expected FIELD="),
    "unknown": (
        (TRAINED, "--values", "optimiser.learning_rat=1"),
        "no field 'optimiser.learning_rat'; did you mean 'optimiser.learning_rate'?",
    ),
    "a group": ((TRAINED, "--values", "optimiser=1"), "no field 'optimiser'"),
    "range": ((TRAINED, "--values", f"{RATE}=0.1,-1"), "--optimiser.learning-rate is -1.0; expec"),
    "type": ((TRAINED, "--values", f"{RATE}=0.1,fast"), "--optimiser.learning-rate: "),
    "switch": ((TRAINED, "--values", "data.flip=maybe"), "'maybe' is no switch"),
    "duplicate": ((TRAINED, "--values", f"{RATE}=0.1,0.1"), "0.1 is given twice"),
    "equal": ((TRAINED, "--values", f"{RATE}=0.1,1e-1"), "0.1 and 1e-1 are the same value"),
    "empty": ((TRAINED, "--values", f"{RATE}="), f"the list of {RATE} is empty"),
    "hole": ((TRAINED, "--values", f"{RATE}=0.1,,0.2"), f"value 2 of {RATE} is empty"),
    "twice": ((TRAINED, *RATES, *RATES), f"--values of {RATE} are given twice"),
    "beside": ((TRAINED, *RATES, "--optimiser.learning-rate", "1"), "is given beside --values"),
    "together": (
        (TRAINED, "--values", "data.accumulation=1,3", *BATCHES), "--data.accumulation is 3"
    ),
    "many": (
        (TRAINED, "--values", "data.batch_size=" + ",".join(map(str, range(1, 1002)))),
        "--values have 1,001 combinations; expected at most 1,000",
    ),
    "both": ((TRAINED, *RATES, "--slurm", "--jobset"), "--slurm and --jobset are both given"),
    "job": ((TRAINED, *RATES, "--job.nodes", "2"), "--job.nodes is for --slurm or --jobset"),
    "json": ((TRAINED, *RATES, "--slurm", "--json"), "--json is for runs on this machine"),
    "array": ((TRAINED, *RATES, *SMALL, "--slurm", "--job.seed-array"), "--job.seed-array is Tr"),
    "devices": ((TRAINED, *BATCHES, "--values", "mesh.model=1,3", "--slurm"), "--mesh.model is 3"),
    "volume": ((TRAINED, *RATES, *SMALL, "--jobset", "--out", "x"), "expected a folder below --jo"),
    "name": ((TRAINED, *RATES, *SMALL, "--jobset", "--job.name", "a" * 48), "at most 47 charac"),
    "a run": ((PRUNED, *KEEP, "--out", "run"), "--out is 'run', the folder of a run"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_before_anything_runs(call, tmp_path, case):
    if case == "a run":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = MISTAKES[case]
    code, out, err = call("sweep", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    # A paper that lacks a file has a line of its own.
    lines = [line for line in err.splitlines() if not line.startswith("adaptive-nets: paper ")]
    assert len(lines) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_help_lists_the_flags_of_the_experiment(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", TRAINED, "--help"])
    out = capsys.readouterr().out
    assert "--values" in out
    assert "--optimiser.learning-rate" in out
