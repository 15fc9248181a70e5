"""Progress on the screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from adaptive_nets.runtime import progress as progress_lib
from adaptive_nets.runtime.progress import ConsoleProgress, format_seconds


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_rate_and_remaining_time(clock):
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, width=200))
    progress.start("run", done=0, total=1000)
    for done in range(1, 31):
        clock[0] += 1.0
        progress.update(10 * done, {"loss": 0.5})
    progress.finish()
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("run: 100/1000 (10%), 10 steps/s, 1:30 left")
    assert "loss 0.5" in lines[0]


def test_the_rate_forgets_the_time_of_compilation(clock):
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, width=200))
    progress.start("run", done=0, total=10_000)
    clock[0] += 60.0
    progress.update(1)
    for done in range(1, 300):
        clock[0] += 0.1
        progress.update(1 + 10 * done)
    assert "100 steps/s" in screen.getvalue().splitlines()[-1]


def test_a_terminal_gets_a_bar(clock):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with ConsoleProgress(console) as progress:
        progress.start("run", done=5, total=20)
        progress.update(10, {"loss": 0.25})
        progress.show("a line above")
    text = screen.getvalue()
    assert "run" in text
    assert "a line above" in text


def test_text_is_shown_as_it_is():
    screen = io.StringIO()
    ConsoleProgress(Console(file=screen, width=200)).show("[bold] stays [/bold]")
    assert screen.getvalue() == "[bold] stays [/bold]\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3725, "1:02:05")])
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_no_remaining_time_before_two_groups_are_measured_after_compilation(clock):
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, width=200))
    progress.start("run", done=0, total=1001)
    for done, seconds in ((1, 600.0), (11, 10.0), (21, 10.0), (31, 10.0)):
        clock[0] += seconds
        progress.update(done)
    lines = [line.split(", ", 1)[1] for line in screen.getvalue().splitlines()]
    assert lines == [
        "– steps/s, – left",
        "– steps/s, – left",
        "1 steps/s, 16:20 left",
        "1 steps/s, 16:10 left",
    ]


def test_a_resumed_task_measures_anew(clock):
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, width=200))
    progress.start("run", done=500, total=1000)
    for done in (501, 511, 511, 521):
        clock[0] += 20.0
        progress.update(done)
    lines = screen.getvalue().splitlines()
    assert [" – left" in line for line in lines] == [True, True, True, False]
    # The update without progress is no group of its own; its time counts all the same.
    assert "0.3333 steps/s" in lines[-1]


def test_the_bar_has_no_remaining_time_before_two_groups(clock):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with ConsoleProgress(console) as progress:
        progress.start("run", done=0, total=20)
        clock[0] += 600.0
        progress.update(1)
        clock[0] += 1.0
        progress.update(2)
    assert "– left" in screen.getvalue()
    assert ":" not in screen.getvalue()
