"""Aborts of native code are explained in one line, others are left as they are."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A thread of native code writes a fatal message and aborts, as absl's LOG(FATAL) does.
SCRIPT = """
import ctypes, os, sys, time
sys.path.insert(0, ROOT)
from adaptive_nets.runtime.native_abort import translated_aborts

def explain(text):
    if "peer" in text:
        print("one line:", text.strip().splitlines()[0][-9:], file=sys.stderr, flush=True)
        os._exit(75)

with translated_aborts(explain):
    print("result")
    os.write(1, b"native output\\n")
    os.write(2, b"[Gloo] Rank ")
    os.write(2, b"0 is connected\\nwarning\\nhalf a")
    time.sleep(0.1)
    os.write(2, b" line\\n")
    if MESSAGE:
        os.write(2, b"F1130 07:36:33.1 7511 client.h:86] MESSAGE\\nmore\\n")
        os.write(2, b"*** Check failure stack trace: ***\\n@ 0x1\\n")
        ctypes.CDLL(None).abort()
print("after", file=sys.stderr)
os.write(2, b"direct\\n")
"""


def run(message):
    script = SCRIPT.replace("ROOT", repr(str(ROOT))).replace("if MESSAGE", f"if {bool(message)}")
    return subprocess.run(
        [sys.executable, "-c", script.replace("MESSAGE", message)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_an_abort_that_is_understood_becomes_one_line():
    found = run("lost peer")
    assert found.returncode == 75
    assert "native output\nwarning\nhalf a line\n" in found.stderr
    assert found.stderr.endswith("one line: lost peer\n")
    assert "stack trace" not in found.stderr
    assert found.stdout in ("result\n", "")  # os._exit does not flush.


def test_nothing_changes_without_an_abort():
    found = run("")
    assert found.returncode == 0
    assert found.stdout == "result\n"
    assert found.stderr == "native output\nwarning\nhalf a line\nafter\ndirect\n"


@pytest.mark.slow
def test_another_abort_is_shown_in_full():
    found = run("of another kind")
    assert found.returncode == -signal.SIGABRT
    assert "client.h:86] of another kind\nmore\n*** Check failure stack trace: ***\n@ 0x1\n" in (
        found.stderr
    )
