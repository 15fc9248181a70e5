"""Compiling the kernels for other machines: the programs, what is read from them, the record."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from kernels import aot

DUMP = """\
wrapped_foo grid: [1, 1, 1] threads: [32, 1, 1] shared_memory: 0
gather_conv grid: [7, 2, 1] threads: [128, 1, 1] clusters: none shared_memory: 49152
"""
PTXAS = """\
ptxas info    : Function properties for other
    0 bytes stack frame, 9 bytes spill stores, 9 bytes spill loads
ptxas info    : Used 9 registers
ptxas info    : Function properties for gather_conv
    0 bytes stack frame, {stores} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers
"""
TPU_TEXT = (
    '  %gather_conv.1 = f32[8] custom-call(), backend_config={"used_scoped_memory_configs":'
    '[{"memory_space":"1","offset":"0","size":"65536"}]}\n'
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The variables that the program sets are put back."""
    for name in ("TPU_SKIP_MDS_QUERY", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_VMODULE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture
def devices(monkeypatch):
    """The devices here take the place of those of every machine."""
    asked = []

    def describe(platform, **arguments):
        asked.append((platform, arguments))
        return SimpleNamespace(devices=jax.devices())

    monkeypatch.setattr(aot.topologies, "get_topology_desc", describe)
    return asked


class Compiled:
    """A compiled program as the compiler for a machine would return it."""

    def as_text(self):
        return TPU_TEXT

    def memory_analysis(self):
        return SimpleNamespace(temp_size_in_bytes=11, generated_code_size_in_bytes=22)


@pytest.fixture
def compiler(monkeypatch, devices):
    """Real lowering, then a compiler that says what those of the machines say."""
    said = SimpleNamespace(stores=0, programs=[])
    real = aot._compiler

    def make(machine):
        lower = real(machine)

        def lowered(f, *shapes):
            program = lower(f, *shapes)

            def compile_program(options):
                said.programs.append((machine, program))
                if "xla_dump_to" in options:
                    path = os.path.join(options["xla_dump_to"], "a.thunk_sequence.txt")
                    with open(path, "w") as file:
                        file.write(DUMP)
                    os.write(2, PTXAS.format(stores=said.stores).encode())
                return Compiled()

            return SimpleNamespace(compile=compile_program)

        return lowered

    monkeypatch.setattr(aot, "_compiler", make)
    return said


def run(tmp_path, *arguments):
    code = aot.main(["--out", str(tmp_path / "new" / "record.json"), *arguments])
    return code, json.loads((tmp_path / "new" / "record.json").read_text())


def test_kernels_of_a_tpu_are_lowered_and_recorded(tmp_path, compiler, devices, capsys):
    code, record = run(tmp_path, "--machine", "v5e", "--layer", "conv4.1x1-reduce")
    assert code == 0
    assert devices == [("tpu", {"topology_name": "v5e:2x2"})]
    kernels = record["kernels"]
    assert {(k["op"], k["dtype"]) for k in kernels} == {
        (op, dtype) for op in aot.OPS for dtype in aot.DTYPES
    }
    for kernel in kernels:
        assert kernel["machine"] == "v5e"
        assert kernel["device_kind"] == "TPU v5 lite"
        assert kernel["x"] == [aot.BATCH, 14, 14, 1024]
        assert kernel["tile"] is not None
        assert kernel["figures"] == {
            "vmem_bytes": 65536,
            "temporary_bytes": 11,
            "code_bytes": 22,
        }
        share = {"perforated_conv": 2, "masked_conv": 1}[kernel["op"]]
        assert kernel["rows"] == aot.BATCH * 14 * 14 // share
    assert record["versions"]["jax"] == jax.__version__
    assert all("tpu_custom_call" in program.as_text() for _, program in compiler.programs)
    out = capsys.readouterr().out
    assert out.count("vmem_bytes 65536") == len(kernels)
    assert "4 of 4 compiled" in out


def test_registers_shared_memory_and_grid_of_a_gpus_kernels(tmp_path, compiler):
    code, record = run(tmp_path, "--machine", "h100", "--layer", "conv4.1x1-reduce")
    assert code == 0
    triton = [k for k in record["kernels"] if k["implementation"] == "pallas_triton"]
    assert len(triton) == 4
    for kernel in triton:
        figures = kernel["figures"]
        assert (figures["programs"], figures["threads"]) == (14, 128)
        assert figures["shared_memory_bytes"] == 49152
        assert (figures["registers"], figures["spilled_bytes"]) == (168, 0)


def test_spilled_registers_are_a_failure(tmp_path, compiler, capsys):
    compiler.stores = 64
    code, record = run(tmp_path, "--machine", "h100", "--layer", "conv4.1x1-reduce")
    assert code == 1
    assert "spills 64 bytes of registers" in {k.get("error") for k in record["kernels"]}
    assert "FAILED spills 64 bytes of registers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "key", "text", "code"),
    [
        (NotImplementedError("windows of 3"), "refused", "windows of 3", 0),
        (RuntimeError("no such instruction"), "error", "RuntimeError: no such instruction", 1),
    ],
)
def test_what_a_compiler_refuses_is_recorded(
    tmp_path, monkeypatch, devices, error, key, text, code
):
    def lower(f, *shapes):
        raise error

    monkeypatch.setattr(aot, "_compiler", lambda machine: lower)
    found, record = run(tmp_path, "--machine", "v6e", "--layer", "vgg16")
    assert found == code
    assert {kernel[key] for kernel in record["kernels"]} == {text}


def test_a_layer_that_does_not_exist_is_no_success(tmp_path, devices):
    code, record = run(tmp_path, "--layer", "conv9")
    assert code == 1
    assert record["kernels"] == []


def test_programs_are_lowered_for_the_machine_and_not_for_this_one(devices):
    lower = aot._compiler(aot.MACHINES[1])
    text = lower(lambda x: x @ x, jax.ShapeDtypeStruct((8, 8), jnp.float32)).as_text()
    assert "stablehlo.dot_general" in text
    assert devices == [("tpu", {"topology_name": "v5e:2x2"})]


def test_figures_that_are_not_said_are_none(tmp_path):
    with aot._capture_stderr() as said:
        os.write(2, b"nothing of registers\n")
        assert set(aot._cuda_figures(str(tmp_path), said).values()) == {None}
    assert aot._tpu_figures(SimpleNamespace(as_text=lambda: "")) == {"vmem_bytes": None}
