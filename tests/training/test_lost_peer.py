"""Lost and late processes: recognised, named, and told in one line."""

from __future__ import annotations

import errno
import socket
import threading
import time

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.lost_peer import (
    CoordinatorAddressError,
    LostPeerError,
    describe,
    is_lost_peer,
    parse_fatal,
    saved_step,
)
from adaptive_nets.training.roll_call import call_roll, split_address

FATAL = (
    "F1130 07:36:33.192619 7511 client.h:86] Terminating process because the JAX distributed "
    "service detected fatal errors. absl::Status: "
)


@pytest.mark.parametrize(
    ("text", "processes", "why"),
    [
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe "
            "tasks have crashed.\n\nRPC: /xla.coordination.CoordinationService/PollForError",
            (1,), "stopped sending heartbeats",
        ),
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n"
            "/job:jax_worker/replica:0/task:2, /job:jax_worker/replica:0/task:13\nThe tasks",
            (2, 13), "stopped sending heartbeats",
        ),
        (
            "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was "
            "killed.\n:UNAVAILABLE:Stream removed (Socket closed)", (0,), "its connection closed",
        ),
        (
            "DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: "
            "/xla.coordination.CoordinationService/Heartbeat", (0,), "stopped answering",
        ),
        (
            "DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: "
            "/xla.coordination.CoordinationService/RegisterTask", (), "did not connect in time",
        ),
        ("INTERNAL: of a kind not seen before", (), "INTERNAL: of a kind not seen before"),
    ],
)  # fmt: skip
def test_fatal_messages_of_the_distributed_client(text, processes, why):
    found = parse_fatal(FATAL + text)
    assert found is not None
    assert (found.processes, found.why) == (processes, why)


def test_other_fatal_messages_are_not_of_a_lost_process():
    assert parse_fatal("F1130 07:36:33.1 7511 hlo.cc:5] Check failed: shape.ok()") is None


def test_errors_of_collectives_and_disks_are_told_apart():
    gloo = ValueError("Gloo AllGather failed: Connection closed by peer [127.0.0.1]:30616")
    wrapped = RuntimeError("checkpoint could not be written")
    wrapped.__cause__ = gloo
    assert is_lost_peer(gloo)
    assert is_lost_peer(wrapped)
    assert is_lost_peer(LostPeerError("anything"))
    assert not is_lost_peer(OSError(errno.ENOSPC, "No space left", "barrier/x"))
    assert not is_lost_peer(ZeroDivisionError("division by zero"))
    gloo.__context__ = wrapped  # A circle of causes ends.
    assert is_lost_peer(gloo)


def test_the_line_about_a_lost_process(tmp_path):
    error = LostPeerError("stopped sending heartbeats", (1,))
    told = {"process": 0, "count": 3, "hosts": ("a", "b", "c"), "command": "run 'a b'"}
    assert describe(error, **told, folder=tmp_path) == (
        "process 0 of 3 lost process 1 (host b): stopped sending heartbeats; no step is saved; "
        "start all processes again to resume, this one with: run 'a b'"
    )
    for name in (
        "seed0/checkpoints/40", "seed1/checkpoints/9", "seed1/checkpoints/20",
        "seed1/checkpoints/21.orbax-checkpoint-tmp", "seed1/damaged-checkpoints/30",
    ):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    assert saved_step(tmp_path) == (20, tmp_path / "seed1/checkpoints")
    assert "; step 20 is saved in " in describe(error, **told, folder=tmp_path)
    assert describe(LostPeerError("x", (0,)), process=0, count=2).startswith(
        "process 0 of 2 was given up by the others: x; start all"
    )
    assert describe(LostPeerError("x"), process=None, count=None).startswith(
        "this process lost another process of the run: x;"
    )
    assert describe(CoordinatorAddressError("x"), process=0, count=2).startswith(
        "process 0 of 2 cannot start: x;"
    )


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"localhost:{port}"


def call_all(address, processes, *, count, seconds=10.0, delay=0.0):
    """Calls the roll in one thread per process; returns a link or an error of each."""
    found = {}

    def call(process):
        time.sleep(0 if process == 0 else delay)
        try:
            found[process] = call_roll(address, process=process, count=count, seconds=seconds)
        except (LostPeerError, UserError) as error:
            found[process] = error

    threads = [threading.Thread(target=call, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [found[process] for process in processes]


def close(links):
    for link in links:
        link.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_processes_come_and_the_first_that_is_lost_is_known_to_all(address, order):
    links = dict(zip(order, call_all(address, order, count=3), strict=True))
    assert all(links[i].hosts == (socket.gethostname(),) * 3 for i in links)
    assert links[0].first_lost(0.01) is None
    links[2].report_lost(1, "hung")
    for link in links.values():
        lost = link.first_lost(5)
        assert (lost.process, lost.why) == (1, "hung")
    links[0].report_lost(2, "later")
    assert links[0].first_lost(0).process == 1
    close(links.values())


def test_a_process_that_leaves_is_not_lost_unless_it_says_why(address):
    first, second, third = call_all(address, (0, 1, 2), count=3)
    second.leave()
    assert first.first_lost(0.2) is None
    third.leave("exited with code 2, see its output")
    lost = first.first_lost(5)
    assert (lost.process, lost.why) == (2, "exited with code 2, see its output")
    close((first, second, third))


def test_missing_processes_are_named_to_all_that_came(address):
    found = call_all(address, (0, 2), count=4, seconds=1)
    for error in found:
        assert error.processes == (1, 3)
        assert error.why == f"did not connect to {address} within --distributed.start-seconds 1"


def test_process_0_is_missed(address):
    (error,) = call_all(address, (1,), count=2, seconds=0.5)
    assert error.processes == (0,)
    assert "nothing answers there (connection refused)" in error.why


def test_a_host_without_an_address_is_named():
    (error,) = call_all("nowhere.invalid:7000", (1,), count=2, seconds=0.5)
    assert "the host cannot be resolved" in error.why


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_cannot_exist_is_named(port):
    with pytest.raises(CoordinatorAddressError, match="expected a port from 1 to 65535"):
        call_roll(f"localhost:{port}", process=0, count=2, seconds=1)


def greet(server):
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"220 mail\n")


def test_a_port_in_use_is_named(address):
    with socket.create_server(("", split_address(address)[1])) as other:
        (error,) = call_all(address, (0,), count=2, seconds=1)
        assert isinstance(error, CoordinatorAddressError)
        assert "cannot be opened (address already in use)" in error.why
        # Something else answers there.
        threading.Thread(target=greet, args=(other,)).start()
        (error,) = call_all(address, (1,), count=2, seconds=0.5)
        assert error.processes == (0,)


def test_strangers_do_not_disturb_the_roll(address):
    def disturb():
        host, port = split_address(address)
        for content in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"[]\n",
            b"\xff\xfe\n",
            b'{"process": 1}\n',
            b"",
        ):
            with socket.create_connection((host, port), timeout=5) as stranger:
                stranger.sendall(content)

    timer = threading.Timer(0.2, disturb)
    timer.start()
    first, second = call_all(address, (0, 1), count=2, delay=0.6)
    timer.join()
    assert first.hosts == second.hosts
    close((first, second))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"process": 1, "count": 3}, "--distributed.process-id is 1, which host .* has already"),
        ({"process": 2, "count": 2}, "--distributed.num-processes is 2; expected 3, the value of"),
        ({"process": 5, "count": 3}, "--distributed.process-id is 5; expected one per process"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(address, own, message):
    host = threading.Thread(
        target=call_all, args=(address, (0, 1)), kwargs={"count": 3, "seconds": 1}
    )
    host.start()
    time.sleep(0.4)  # Process 1 has come.
    with pytest.raises(UserError, match=message):
        call_roll(address, **own, seconds=2)
    host.join(30)


def test_addresses_are_split():
    assert split_address("host:1") == ("host", 1)
    assert split_address("[::1]:23") == ("::1", 23)
