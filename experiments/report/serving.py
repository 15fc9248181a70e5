"""Server of the report on this machine, which renders the page again when records change.

The page itself is served unchanged at ``/report``; ``/`` is a frame around it that asks ``/state``
every two seconds, shows the runs that are going on, and loads the page again, at the same place,
when its records have changed.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from experiments.suite.records import RECORD
from experiments.suite.run_inputs import RUN_FILE

HOST = "127.0.0.1"
# Folders of a run without records below them, which hold many files.
_PRUNED = {"checkpoints", "tensorboard", "profile"}
_METRICS = "metrics.jsonl"
# Of the end of metrics.jsonl, which holds its last whole line.
_TAIL = 16_384

_FRAME = """<!doctype html>
<html lang="en-GB"><head><meta charset="utf-8"><title>adaptive_nets: report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'">
<style>
html, body { height: 100%; margin: 0; font: 14px/1.4 system-ui, sans-serif; }
body { display: flex; flex-direction: column; }
#state { padding: 4px 12px; border-bottom: 1px solid #8888; white-space: pre-line; }
iframe { flex: 1; border: 0; width: 100%; }
</style></head><body>
<div id="state" role="status">waiting for runs</div>
<iframe src="/report" title="report"></iframe>
<script>
const bar = document.getElementById("state"), frame = document.querySelector("iframe");
let shown = null;
async function ask() {
  try {
    const state = await (await fetch("/state")).json();
    bar.textContent = state.lines.join("\\n");
    if (shown !== null && shown !== state.version) {
      const y = frame.contentWindow.scrollY;
      frame.addEventListener("load", () => frame.contentWindow.scrollTo(0, y), {once: true});
      frame.contentWindow.location.reload();
    }
    shown = state.version;
  } catch { bar.textContent = "the server has stopped; adaptive-nets report --serve starts it"; }
  setTimeout(ask, 2000);
}
ask();
</script></body></html>
"""


def _walk(roots: Sequence[Path], name: str) -> Iterator[Path]:
    """Yields the files of this name below the folders."""
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in _PRUNED)
            if name in files:
                yield Path(folder) / name


def records_version(roots: Sequence[Path], published: Path) -> str:
    """Returns a digest of the records' paths, sizes and times; another one when they change.

    Args:
        roots: folders with records.
        published: the one of them whose records have names of their own.
    """
    paths = [p for r in roots if r == published for p in sorted(r.glob("*/*/*.json"))]
    paths += _walk([root for root in roots if root != published], RECORD)
    lines = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue  # Replaced or moved meanwhile.
        lines.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def runs_in_progress(roots: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the seeds that have begun and have no record yet.

    Args:
        roots: folders of runs.

    Returns:
        One object a seed: "folder", and "step" and "values" of its last logged line, if any.
    """
    found = []
    for path in _walk(roots, RUN_FILE):
        for seed in sorted(path.parent.glob("seed*")):
            if not seed.is_dir() or (seed / RECORD).exists():
                continue
            line = _last_line(seed / _METRICS)
            step = line.pop("step", None)
            values = {n: v for n, v in line.items() if isinstance(v, (int, float))}
            found.append({"folder": str(seed), "step": step, "values": values})
    return found


def _last_line(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except ValueError:
            continue  # Being written, or cut off.
        if isinstance(line, dict):
            return line
    return {}


def progress_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line of text for each run in progress; one line if there is none."""
    lines = []
    for run in runs:
        where = "no line yet" if run["step"] is None else f"step {run['step']}"
        values = ", ".join(f"{name} {value:.4g}" for name, value in list(run["values"].items())[:5])
        lines.append(f"{run['folder']}: {where}{', ' if values else ''}{values}")
    return lines or ["no run is going on; records are shown as they come"]


class ReportServer(http.server.ThreadingHTTPServer):
    """Server of the page at http://127.0.0.1:PORT, for this machine alone.

    Args:
        render: renders the page from the records as they are.
        roots: folders with records and runs.
        published: the one of them whose records have names of their own.
        port: port to listen on; 0 for any free one.

    Raises:
        UserError: the port is in use.
    """

    daemon_threads = True

    def __init__(
        self, render: Callable[[], str], roots: Sequence[Path], *, published: Path, port: int
    ):
        self._render, self._roots, self._published = render, list(roots), published
        self._lock = threading.Lock()
        self._page: tuple[str, bytes] | None = None
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"--port is {port}, where the page cannot be served ({reason}); expected another "
                "port, or 0 for any free one"
            ) from error

    @property
    def address(self) -> str:
        """URL of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def page(self) -> bytes:
        """Returns the page; renders it again if records have changed since."""
        with self._lock:
            version = records_version(self._roots, self._published)
            if self._page is None or self._page[0] != version:
                self._page = version, self._render().encode()
            return self._page[1]

    def state(self) -> bytes:
        """Returns version of the records and runs in progress, as JSON."""
        runs = runs_in_progress([root for root in self._roots if root != self._published])
        version = records_version(self._roots, self._published)
        return json.dumps(
            {"version": version, "runs": runs, "lines": progress_lines(runs)}
        ).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReportServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        # A page of another site may send requests here under a name of its own.
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in (HOST, "localhost"):
            self.send_error(403, "only for this machine")
        elif self.path == "/":
            self._send(_FRAME.encode(), "text/html; charset=utf-8")
        elif self.path == "/report":
            self._send(self.server.page(), "text/html; charset=utf-8")
        elif self.path == "/state":
            self._send(self.server.state(), "application/json")
        else:
            self.send_error(404)

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing for a request."""
