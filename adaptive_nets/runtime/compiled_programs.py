"""A folder of compiled programs, so that a command compiles each of them once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from pathlib import Path

# Bytes of all programs together; JAX removes those that were not used for the longest time.
_MOST_BYTES = 2 << 30
# Programs that compile in less time are compiled again.
_LEAST_SECONDS = 0.1
_FOLDER = "jax_compilation_cache_dir"
# Endings of JAX's files.
_PROGRAM, _TIME = "-cache", "-atime"
_MOST_SECONDS_OF_WRITING = 10.0


def keep_compiled_programs(folder: str | Path) -> None:
    """Lets JAX keep compiled programs below a folder, unless the user has chosen another way.

    Sets environment variables, which child processes inherit, and the configuration of JAX if that
    is imported already. $JAX_COMPILATION_CACHE_DIR names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. Does nothing where the folder cannot be
    written.

    Args:
        folder: folder of all machines, of which ~ is expanded; each kind of processor has its own
            within it.
    """
    jax = sys.modules.get("jax")
    if _FOLDER.upper() in os.environ or (jax and jax.config.jax_compilation_cache_dir):
        return
    try:
        own = Path(folder).expanduser() / _processor()
        own.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if not os.access(own, os.W_OK):
        return
    _remove_half_written(own)
    values = {
        _FOLDER: os.fspath(own),
        "jax_compilation_cache_max_size": _MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": _LEAST_SECONDS,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in values.items():
        os.environ.setdefault(name.upper(), str(value))
        if jax:
            jax.config.update(name, value)


def _remove_half_written(folder: Path) -> None:
    """Removes programs whose writing was cut off, which JAX would neither read nor replace.

    JAX notes the time of use beside a program once it is written. A program without that may still
    be written by another process at this moment if it is new.
    """
    for entry in folder.glob(f"*{_PROGRAM}"):
        with contextlib.suppress(OSError):
            noted = entry.with_name(entry.name.removesuffix(_PROGRAM) + _TIME).exists()
            if not noted and time.time() - entry.stat().st_mtime > _MOST_SECONDS_OF_WRITING:
                entry.unlink()


def _processor() -> str:
    """Returns a name of the processor's kind: programs for another one may not run on it."""
    text = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    wanted = ("flags", "Features", "model name")
    text += "".join(sorted({line for line in lines if line.startswith(wanted)}))
    return f"{platform.machine() or 'cpu'}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
