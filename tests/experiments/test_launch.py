"""Scripts for clusters: from the flags of a run, valid for the tools that read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_papers import TRAINED as ID

from experiments.__main__ import main
from experiments.launch import kubernetes, slurm, ssh
from experiments.launch.quoting import yaml_string
from experiments.launch.request import RunRequest

pytestmark = pytest.mark.usefixtures("toy_paper")

SMALL = ("--data.batch-size", "96", "--data.eval-batch-size", "960")


@pytest.fixture
def launch(capsys):
    def call(*arguments):
        code = main(["launch", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def rendered(launch, *arguments):
    code, out, err = launch(*arguments)
    assert code == 0, err
    assert re.search("@[A-Z_]+@", out) is None, out
    return out


def check_shell(text, tmp_path):
    path = tmp_path / "script.sh"
    path.write_text(text)
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    # A function that a trap calls is not unreachable.
    found = subprocess.run(["shellcheck", "-e", "SC2317", path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_slurm(launch, tmp_path):
    script = rendered(
        launch, "slurm", ID, "--preset", "paper", *SMALL, "--schedule.length", "20 steps",
        "--job.nodes", 2, "--job.gpus-per-node", 4, "--job.directory", "/work dir",
    )  # fmt: skip
    for line in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    command = (
        f"adaptive-nets run {ID} --preset paper {' '.join(SMALL)} --schedule.length '20 steps'"
    )
    assert f"{command} --distributed.cluster slurm" in script
    assert "cd '/work dir'" in script
    assert "JAX_LOCAL_DEVICE_IDS" not in script
    one = rendered(launch, "slurm", ID, *SMALL, "--job.process-per", "node")
    assert "#SBATCH --ntasks-per-node=1\n" in one
    assert "export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7\n" in one
    check_shell(script, tmp_path)


def test_slurm_options_and_evaluation_batches_of_any_size(launch):
    script = rendered(
        launch, "slurm", ID, "--data.batch-size", "96", "--data.eval-batch-size", "7",
        "--job.account", "lab", "--job.qos", "long", "--job.memory", "64G", "--job.name", "mine",
        "--job.extra", "constraint=a100&nvlink", "exclusive", "--job.time", "2-12",
    )  # fmt: skip
    for line in (
        "account=lab", "qos=long", "mem=64G", "job-name=mine", "constraint=a100&nvlink",
        "exclusive", "time=2-12", "output=mine-%j.log",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script
    # All options stand before the first command, where sbatch stops reading them.
    assert script.index("set -euo") > script.rindex("#SBATCH")


def test_slurm_runs_each_seed_as_a_job_of_its_own(launch, tmp_path):
    script = rendered(
        launch, "slurm", ID, *SMALL, "--seeds", 3, "--first-seed=4", "--out", "a b",
        "--job.seed-array",
    )  # fmt: skip
    assert "#SBATCH --array=4-6\n" in script
    assert "-%A-%a.log\n" in script
    words = words_of_srun(script, tmp_path, SLURM_ARRAY_TASK_ID="5")
    assert words[:3] == [".venv/bin/adaptive-nets", "run", ID]
    assert words[3:7] == list(SMALL)
    assert words[7:-2] == ["--seeds", "1", "--first-seed", "5", "--out", "a b/array-5"]
    plain = rendered(launch, "slurm", ID, *SMALL, "--job.seed-array")
    assert f"--out runs/{ID}/quick/array-" in plain


def bash_functions(tmp_path, script, functions, **environment):
    """Sources a script with functions in place of commands; returns what they recorded."""
    (tmp_path / "script").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)
    record = 'note() { printf "%s\\0" "$@" >> record; }; export -f note\n'
    (tmp_path / "record").write_text("")
    subprocess.run(
        ["bash", "-c", f"{record}{functions}\n. ./script"], cwd=tmp_path, check=True,
        env={"PATH": "/usr/bin:/bin", **environment}, timeout=20,
    )  # fmt: skip
    return (tmp_path / "record").read_bytes().decode().split("\0")[:-1]


def words_of_srun(script, tmp_path, **environment):
    functions = 'cd() { :; }; srun() { shift; note "$@"; }'
    return bash_functions(tmp_path, script, functions, **environment)


def expand_as_kubernetes(text, environment):
    """Expands references in a container's arguments as Kubernetes documents it."""
    found, i = "", 0
    while i < len(text):
        pair = text[i : i + 2]
        end = text.find(")", i)
        if pair == "$$":
            found, i = found + "$", i + 2
        elif pair == "$(" and end > 0:
            name = text[i + 2 : end]
            found, i = found + environment.get(name, text[i : end + 1]), end + 1
        else:
            found, i = found + text[i], i + 1
    return found


WORDS = st.text(
    st.sampled_from("ab $(){}'\"`\\!#&;|<>*?~-=:,%@[]\u00e9\u00a0\U0001f600")
    | st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")),
    max_size=12,
)
NASTY = [
    "", "$(JOB_COMPLETION_INDEX)", "$$(HOME)", "$$$", "'", '"', "\\", "`id`", "a b", "# no", "!!",
    "- x", "{a: b}", "%j", "@NAME@", "~", "*", "\u00e9\U0001f600", "@COMMAND@", "null", "&a *a",
]  # fmt: skip


def request(arguments):
    return RunRequest(
        tuple(arguments), config=None, name="job", folder=Path("runs/x"), out=Path("/shared/x"),
        first_seed=0, seeds=1,
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
@example(NASTY, "/work dir/$(id)'\"")
def test_every_script_gives_back_the_arguments(tmp_path_factory, words, folder):
    yaml = pytest.importorskip("yaml")
    tmp_path = tmp_path_factory.mktemp("script")
    run, directory = request(words), Path("/") / folder.replace("/", "")
    expected = ["a b", "run", *words]

    script = slurm.render(slurm.Slurm(directory=directory, program="a b"), run)
    record = bash_functions(tmp_path, script, 'cd() { note "$@"; }; srun() { shift; note "$@"; }')
    assert record == [str(directory), *expected, "--distributed.cluster", "slurm"]

    script = ssh.render(ssh.Ssh(directory=directory, program="a b", hosts=("me@::1",)), run)
    functions = (
        'cd() { note "$@"; }; exec() { note "$@"; }; export -f cd exec\n'
        'ssh() { [ "$3" = me@::1 ] && bash -c "$4"; }'
    )
    record = bash_functions(tmp_path, script, functions)
    assert record[: 1 + len(expected)] == [str(directory), *expected]
    assert record[1 + len(expected) :][:2] == ["--distributed.coordinator", "[::1]:12345"]

    _, _, pod = jobset(kubernetes.render(kubernetes.Kubernetes(), run))
    environment = {"JOB_COMPLETION_INDEX": "7", "HOME": "/root"}
    command = expand_as_kubernetes(pod["containers"][0]["args"][0], environment)
    record = bash_functions(tmp_path, command, 'exec() { note "$@"; }', **environment)
    assert record[: 2 + len(words)] == ["adaptive-nets", "run", *words]
    assert record[-2:] == ["--distributed.process-id", "7"]
    assert yaml.safe_load(yaml_string("".join(words))) == "".join(words)


@pytest.mark.parametrize("kind", ["slurm", "k8s", "ssh"])
@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "\u202e", "\udc80"]
)
def test_invisible_characters_are_refused(launch, kind, character):
    for flag in ("--out", "--data-dir", "--job.name"):
        code, out, err = launch(kind, ID, *SMALL, flag, f"/shared/a{character}b")
        assert (code, out) == (2, "")
        assert f"U+{ord(character):04X}" in err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_slurm_itself_takes_the_script(launch, tmp_path):
    if shutil.which("sbatch") is None:
        pytest.skip("needs sbatch")
    if subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("needs a SLURM controller that answers")
    script = tmp_path / "job.sh"
    script.write_text(
        rendered(launch, "slurm", ID, "--job.gpus-per-node", 0, "--job.cpus-per-process", 1)
    )
    found = subprocess.run(["sbatch", "--test-only", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


# What the schema of JobSet v1alpha2 and of a pod demands of these manifests: kind of each value.
SCHEMA = {
    "apiVersion": str, "kind": str, "metadata.name": str, "spec.network.enableDNSHostnames": bool,
    "spec.network.subdomain": str, "spec.failurePolicy.maxRestarts": int,
    "spec.replicatedJobs.0.name": str, "spec.replicatedJobs.0.replicas": int,
    "spec.replicatedJobs.0.template.spec.parallelism": int,
    "spec.replicatedJobs.0.template.spec.completions": int,
    "spec.replicatedJobs.0.template.spec.completionMode": str,
    "spec.replicatedJobs.0.template.spec.backoffLimit": int,
}  # fmt: skip
POD = {
    "restartPolicy": str, "terminationGracePeriodSeconds": int, "containers.0.name": str,
    "containers.0.image": str, "containers.0.command.0": str, "containers.0.args.0": str,
    "containers.0.ports.0.containerPort": int, "containers.0.volumeMounts.0.name": str,
    "containers.0.volumeMounts.0.mountPath": str, "volumes.0.name": str,
    "volumes.0.persistentVolumeClaim.claimName": str,
}  # fmt: skip


def value(tree, path):
    for part in path.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def jobset(text):
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load(text)
    for path, kind in SCHEMA.items():
        assert isinstance(value(manifest, path), kind), path
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    assert len(manifest["metadata"]["name"]) <= 63
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
    pod = job["template"]["spec"]
    for path, kind in POD.items():
        assert isinstance(value(pod, path), kind), path
    assert pod["restartPolicy"] == "Never"
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == names
    return manifest, job, pod


def test_kubernetes_with_gpus(launch):
    text = rendered(
        launch, "k8s", ID, *SMALL, "--out", "/shared/run", "--schedule.length", "9 steps",
        "--job.nodes", 2, "--job.devices-per-node", 4, "--job.namespace", "research",
    )  # fmt: skip
    manifest, job, pod = jobset(text)
    name = manifest["metadata"]["name"]
    assert manifest["metadata"]["namespace"] == "research"
    assert job["completions"] == 2
    container = pod["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    command = container["args"][0]
    assert "\n" not in command.strip()
    assert f"--distributed.coordinator {name}-workers-0-0.{name}:12345" in command
    assert "--distributed.num-processes 2" in command
    assert '--distributed.process-id "$JOB_COMPLETION_INDEX"' in command
    # A shell reads it as it was typed.
    shown = subprocess.run(
        ["sh", "-c", command.replace("exec adaptive-nets", "printf '%s|'")],
        env={"JOB_COMPLETION_INDEX": "1"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.startswith(f"run|{ID}|--data.batch-size|96|")
    assert "|9 steps|" in shown
    assert shown.endswith("--distributed.process-id|1|")


def test_kubernetes_with_tpus(launch):
    flags = ("--job.device", "tpu", "--job.nodes", 2, "--job.devices-per-node", 4)
    _, _, pod = jobset(rendered(launch, "k8s", ID, *SMALL, *flags))
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert "--distributed.cluster gketpu" in pod["containers"][0]["args"][0]
    # Without --out, the run is on the volume all the same.
    assert f"--out /shared/runs/{ID}/quick" in pod["containers"][0]["args"][0]
    code, _, err = launch("k8s", ID, *SMALL, *flags, "--job.tpu-topology", "2x2")
    assert code == 2
    assert "--job.tpu-topology is '2x2'; expected the 8 chips of all nodes" in err


def test_ssh_starts_every_host_and_stops_all(launch, tmp_path):
    """With an ssh that runs everything here: who is told what, and how it ends."""
    script = rendered(
        launch, "ssh", ID, *SMALL, "--schedule.length", "7 steps",
        "--job.hosts", "me@one", "two", "--job.directory", tmp_path, "--job.program", "./train",
    )  # fmt: skip
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/bash\nshift 2\necho "$1" >> hosts\nexec bash -c "$2"\n')
    train = tmp_path / "train"
    train.write_text(
        "#!/bin/bash\nprintf '%s|' \"$@\" > said.${!#}\n"
        "trap 'echo saved > saved.${!#}; exit 143' TERM\n"
        "for i in {1..400}; do sleep 0.05; done\n"
    )
    for path in (ssh, train):
        path.chmod(0o755)
    (tmp_path / "go.sh").write_text(script)
    environment = {"PATH": f"{ssh.parent}:/usr/bin:/bin"}
    started = subprocess.Popen(["bash", "go.sh"], cwd=tmp_path, env=environment)
    for _ in range(200):
        if len(list(tmp_path.glob("said.*"))) == 2:
            break
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.3)  # Their traps are set by now.
    started.terminate()
    assert started.wait(20) == 143
    for process in (0, 1):
        said = (tmp_path / f"said.{process}").read_text()
        assert said.startswith(f"run|{ID}|--data.batch-size|96|")
        assert "|--schedule.length|7 steps|" in said
        assert "|--distributed.coordinator|one:12345|--distributed.num-processes|2|" in said
        assert (tmp_path / f"saved.{process}").read_text() == "saved\n"
    check_shell(script, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slurm",), "expects the id of an experiment first"),
        (("slurm", "nothing"), "experiment 'nothing' is unknown"),
        (("slurm", ID, "--job.nodes", "0"), "--job.nodes is 0; expected a positive number"),
        (("slurm", ID, "--mesh.model", "3"), "--mesh.model is 3; expected a divisor of the 8"),
        (
            ("slurm", ID),
            "--data.batch-size is 100, which does not divide over 8 devices; expected a multiple "
            "of 8, such as 96 or 104",
        ),
        (
            ("slurm", ID, "--data.batch-size", "3"),
            "--data.batch-size is 3, which does not divide over 8 devices; expected a multiple of "
            "8, such as 8",
        ),
        (("slurm", ID, *SMALL, "--job.time", "soon"), "--job.time is 'soon'; expected a time"),
        (("slurm", ID, *SMALL, "--job.nodes", "two"), "--job.nodes"),
        (("slurm", ID, *SMALL, "--job.memory", "lots"), "--job.memory is 'lots'; expected a size"),
        (("slurm", ID, *SMALL, "--job.partition", "a b"), "--job.partition is 'a b'; expected"),
        (("slurm", ID, *SMALL, "--job.qos", "a#b"), "--job.qos is 'a#b'; expected a name"),
        (("slurm", ID, *SMALL, "--job.account=-x"), "--job.account is '-x'; expected a name"),
        (("slurm", ID, *SMALL, "--job.extra", "nodes=3"), "--job.extra is 'nodes=3'; use --job.n"),
        (("slurm", ID, *SMALL, "--job.extra", "a $(b)"), "--job.extra is 'a $(b)'; expected an o"),
        (("slurm", ID, *SMALL, "--out", "a\nb"), "contains the character U+000A; expected print"),
        (("ssh", ID, *SMALL, "--job.hosts=-oProxyCommand=x"), "--job.hosts is '-oProxy"),
        (("ssh", ID, *SMALL, "--job.hosts", "a;b"), "--job.hosts is 'a;b'; expected [user@]host"),
        (("ssh", ID, *SMALL, "--job.hosts", "a", "b@"), "--job.hosts is 'b@'; expected [user@]"),
        (("ssh", ID, *SMALL, "--job.port", "99999"), "--job.port is 99999; expected a port from"),
        (("k8s", ID, *SMALL, "--job.name", "A_b"), "--job.name is 'A_b'; expected at most 50 low"),
        (("k8s", ID, *SMALL, "--job.namespace", "a.b"), "--job.namespace is 'a.b'; expected a na"),
        (("k8s", ID, *SMALL, "--job.image", "a b"), "--job.image is 'a b'; expected an image"),
        (("k8s", ID, *SMALL, "--job.mount", "shared"), "--job.mount is 'shared'; expected an abs"),
        (("k8s", ID, *SMALL, "--out", "runs/x"), "--out is 'runs/x'; expected a folder below --j"),
        (("k8s", ID, *SMALL, "--out", "/shared/../x"), "expected a folder below --job.mount '/sh"),
        (("k8s", ID, *SMALL, "--out", "/shared2/x"), "expected a folder below --job.mount '/shar"),
        (("slurm", ID, "--optimiser.learning-rate", "-1"), "--optimiser.learning-rate is -1"),
        (("k8s", ID, "--distributed.cluster", "auto"), "are set by the script; leave them out"),
        (("pbs", ID), "has no 'pbs'"),
    ],
)
def test_mistakes_are_told_in_a_line(launch, arguments, message):
    code, out, err = launch(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "flags", "expected"),
    [
        ("slurm", ("--job.nodes", 2, "--job.gpus-per-node", 4),
         {"jobs": "1", "processes_per_job": "8", "devices_per_job": "8", "batch_per_device": "12"}),
        ("slurm", ("--seeds", 3, "--job.seed-array", "--job.process-per", "node"),
         {"jobs": "3", "processes_per_job": "1", "seeds": "0, 1, 2"}),
        ("k8s", ("--job.nodes", 2, "--job.devices-per-node", 4, "--out", "/shared/x"),
         {"submit": "kubectl apply -f FILE", "processes_per_job": "2", "folder": "/shared/x"}),
        ("ssh", ("--job.hosts", "a", "b", "--job.devices-per-host", 4),
         {"nodes_per_job": "2", "devices_per_job": "8", "data": "mnist"}),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    launch, tmp_path, monkeypatch, kind, flags, expected
):
    monkeypatch.chdir(tmp_path)
    out = rendered(launch, kind, ID, *SMALL, *flags, "--dry-run")
    fields = dict(line.split("\t") for line in out.splitlines())
    assert expected.items() <= fields.items()
    assert fields["kind"] == kind
    assert fields["folder_here"] == "new"
    assert f"run {ID}" in fields["command"]
    assert not any(tmp_path.iterdir())
    # The flag changes nothing else.
    script = rendered(launch, kind, ID, *SMALL, *flags)
    assert "--dry-run" not in script


def test_a_dry_run_knows_what_is_in_the_folder_and_checks_the_flags(launch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seed = tmp_path / "run" / "seed0"
    seed.mkdir(parents=True)
    command = ("slurm", ID, *SMALL, "--seeds", 2, "--out", "run", "--dry-run")

    def state():
        return dict(line.split("\t") for line in launch(*command)[1].splitlines())["folder_here"]

    (tmp_path / "run" / "run.json").write_text("{}")
    assert state() == "begun"
    (seed / "record.json").write_text("{}")
    assert state() == "1 of 2 seeds finished"
    code, out, err = launch("slurm", ID, "--dry-run")
    assert (code, out) == (2, "")
    assert "--data.batch-size is 100, which does not divide over 8 devices" in err


def test_the_container_recipe(tmp_path):
    root = Path(__file__).parents[2]
    text = (root / "experiments" / "launch" / "Containerfile").read_text()
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    copied = [part for line in lines if line.startswith("COPY") for part in line.split()[1:-1]]
    assert "requirements.lock" in copied
    assert all((root / name).exists() for name in copied)
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert base == "${BASE}"
    assert "ARG DEVICE=cpu" in lines
    # No host of a registry or an index.
    assert not re.search(r"://|\w\.(?:com|io|org)\b|--index-url", text)
    for line in lines:
        if line.startswith("RUN "):
            check = subprocess.run(["sh", "-n", "-c", line[4:]], capture_output=True, text=True)
            assert check.returncode == 0, check.stderr
    # The switch over devices itself.
    (switch,) = [line[4:].split("&&")[0] for line in lines if "case" in line]
    codes = {
        device: subprocess.run(["sh", "-c", switch], env={"DEVICE": device}).returncode
        for device in ("cpu", "cuda", "tpu", "gpu")
    }
    assert codes == {"cpu": 0, "cuda": 0, "tpu": 0, "gpu": 2}
