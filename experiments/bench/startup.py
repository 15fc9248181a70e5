"""Times what a user waits for first: imports, listings, and the compilation of a run."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from adaptive_nets.runtime.errors import UserError

IMPORTS = {
    "import adaptive_nets": "import adaptive_nets",
    "import kernels": "import kernels",
    "import experiments.__main__": "import experiments.__main__",
}
LISTINGS = (("--help",), ("list",), ("models",), ("doctor",))

# Calls the command line, then prints the time of its compilations, which JAX reports as events.
# Reading a compiled program counts as compiling it.
_COMMAND = """
import sys
from jax import monitoring
seconds = 0.0
def listen(event, duration, **_):
    global seconds
    if event.endswith("/backend_compile_duration"):
        seconds += duration
monitoring.register_event_duration_secs_listener(listen)
from experiments.__main__ import main
code = main(sys.argv[1:])
print(f"\\n{seconds}")
raise SystemExit(code)
"""


@dataclasses.dataclass(frozen=True)
class Wait:
    """Time of one command in a new process.

    Attributes:
        what: the command or the import.
        seconds: median time from the start of the process to its end.
        compile_seconds: of these, in XLA's compiler, or reading what it compiled before; None where
            nothing is compiled.
        repetitions: number of processes.
    """

    what: str
    seconds: float
    compile_seconds: float | None
    repetitions: int


def _once(arguments: list[str], home: Path) -> tuple[float, str]:
    environment = os.environ | {"HOME": os.fspath(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in [name for name in environment if name.startswith("JAX_COMPILATION")]:
        del environment[name]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=home
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{' '.join(arguments[-2:])} ended with {done.returncode}: {last}")
    return seconds, done.stdout


def time_starts(
    *,
    run: str,
    data_dir: Path | None = None,
    repetitions: int,
    report: Callable[[Wait], None] = lambda wait: None,
) -> list[Wait]:
    """Times imports, listings, and the first and second start of a run at preset smoke.

    Args:
        run: id of the experiment.
        data_dir: root of its data; None for embedded data.
        repetitions: number of processes for each import and listing.
        report: called with each result.
    """
    found: list[Wait] = []

    def add(what: str, times: list[float], compiled: float | None = None) -> None:
        middle = round(statistics.median(times), 3)
        found.append(Wait(what, middle, compiled, len(times)))
        report(found[-1])

    with tempfile.TemporaryDirectory(prefix="adaptive-nets-start-") as folder:
        home = Path(folder)
        for what, code in IMPORTS.items():
            add(what, [_once(["-c", code], home)[0] for _ in range(repetitions)])
        for arguments in LISTINGS:
            command = ["-m", "experiments", *arguments]
            times = [_once(command, home)[0] for _ in range(repetitions)]
            add(f"adaptive-nets {' '.join(arguments)}", times)
        for name in ("first", "second"):
            arguments = ["run", run, "--preset", "smoke", "--out", os.fspath(home / name)]
            if data_dir is not None:
                arguments += ["--data-dir", os.path.abspath(data_dir)]
            seconds, out = _once(["-c", _COMMAND, *arguments], home)
            compiled = round(float(out.strip().splitlines()[-1]), 3)
            add(f"adaptive-nets run {run}, {name} start", [seconds], compiled)
    return found
