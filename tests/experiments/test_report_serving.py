"""The report served on this machine while runs go on."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request

import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.report.serving import (
    ReportServer,
    progress_lines,
    records_version,
    runs_in_progress,
)


def write(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def roots(tmp_path):
    write(tmp_path / "published" / "toy" / "x" / "quick-seed0.json")
    write(tmp_path / "runs" / "id" / "quick" / "run.json")
    write(tmp_path / "runs" / "id" / "quick" / "seed0" / "record.json")
    (tmp_path / "runs" / "id" / "quick" / "seed1" / "checkpoints").mkdir(parents=True)
    return [tmp_path / "published", tmp_path / "runs"]


def test_the_version_changes_with_the_records_alone(roots):
    first = records_version(roots, roots[0])
    seed = roots[1] / "id" / "quick" / "seed1"
    write(seed / "metrics.jsonl", '{"step": 1}\n')
    write(seed / "checkpoints" / "record.json")
    assert records_version(roots, roots[0]) == first
    versions = {first}
    write(seed / "record.json")
    versions.add(records_version(roots, roots[0]))
    write(seed / "record.json", "{ }")
    versions.add(records_version(roots, roots[0]))
    write(roots[0] / "toy" / "x" / "quick-seed1.json")
    versions.add(records_version(roots, roots[0]))
    shutil.rmtree(seed)
    versions.add(records_version(roots, roots[0]))
    assert len(versions) == 5
    assert records_version([roots[0] / "absent"], roots[0]) != first


def test_runs_in_progress(roots):
    (run,) = runs_in_progress(roots)
    assert run["folder"].endswith("quick/seed1")
    assert (run["step"], run["values"]) == (None, {})
    assert progress_lines([run])[0].endswith("seed1: no line yet")
    seed = roots[1] / "id" / "quick" / "seed1"
    write(
        seed / "metrics.jsonl", '{"step": 1, "a": 1}\n{"step": 2, "a": 0.123456}\n{"step": 3, "a"'
    )
    (run,) = runs_in_progress(roots)
    assert (run["step"], run["values"]) == (2, {"a": 0.123456})
    assert progress_lines([run])[0].endswith("seed1: step 2, a 0.1235")
    write(seed / "record.json")
    assert runs_in_progress(roots) == []
    assert progress_lines([])[0].startswith("no run is going on")


@pytest.fixture
def server(roots):
    count = []

    def render():
        count.append(1)
        return f"<!doctype html>page {len(count)}"

    with ReportServer(render, roots, published=roots[0], port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def get(server, path, **headers):
    request = urllib.request.Request(server.address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.read().decode()


def test_the_page_is_rendered_again_only_when_records_change(server, roots):
    assert '<iframe src="/report"' in get(server, "")
    assert get(server, "report").endswith("page 1")
    before = json.loads(get(server, "state"))
    assert [run["step"] for run in before["runs"]] == [None]
    assert get(server, "report").endswith("page 1")
    write(roots[1] / "id" / "quick" / "seed1" / "record.json")
    after = json.loads(get(server, "state"))
    assert after["version"] != before["version"]
    assert after["runs"] == []
    assert get(server, "report").endswith("page 2")


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1"
    for path, headers, code in (("absent", {}, 404), ("", {"Host": "example.org:80"}, 403)):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(server, path, **headers)
        assert error.value.code == code
        error.value.close()


def test_a_port_in_use_is_named(roots):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port is {port}, where the page cannot be served"):
            ReportServer(str, roots, published=roots[0], port=port)


@pytest.mark.usefixtures("toy_paper")
def test_the_command_serves_until_it_is_stopped(call, monkeypatch):
    from experiments.report import page

    monkeypatch.setattr(page, "render", lambda records, **_: "<!doctype html>")
    seen = []

    def serve(server):
        seen.append(server.page().decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportServer, "serve_forever", serve)
    code, out, err = call("report", "toy", "--serve", "--port", "0")
    assert code == 0, err
    assert out.startswith("http://127.0.0.1:")
    assert "<!doctype html>" in seen[0]
    code, _, err = call("report", "toy", "--serve", "--port", "70000")
    assert code == 2
    assert "--port is 70000; expected a whole number from 0 to 65535" in err
