"""Scripts for clusters: from the flags of a run, valid for the tools that read them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from toy_papers import TRAINED as ID

from experiments.__main__ import main

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
        "--job.nodes", 2, "--job.devices-per-node", 4,
    )  # fmt: skip
    manifest, job, pod = jobset(text)
    name = manifest["metadata"]["name"]
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
        (("slurm", ID), "--data.batch-size is 100; expected a multiple of 8"),
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
