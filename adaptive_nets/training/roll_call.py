"""Roll call of the processes before JAX connects them, and their link during the run.

JAX's client aborts the process if another one does not connect, without its name. Therefore
process 0 first listens on the coordinator's port itself, until every process has given its index
and host. The same connections then tell which process was lost first: the operating system closes
those of a process that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Self

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.lost_peer import CoordinatorAddressError, LostPeerError

_LONGEST_MESSAGE = 1 << 16
_RETRY_SECONDS = 0.2
_GRACE_SECONDS = 2
_MAGIC = "adaptive-nets roll call 1"


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of HOST:PORT; brackets around an IPv6 host are removed."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


class _Connection:
    """Connection that carries one JSON object per line."""

    def __init__(self, sock: socket.socket):
        self.socket = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(5)
        self._buffer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # The other end notices by itself.
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Returns the messages that arrived; None if the other end closed or sent nonsense."""
        try:
            content = self.socket.recv(4096)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not content or len(self._buffer) > _LONGEST_MESSAGE:
            return None
        *lines, self._buffer = (self._buffer + content).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None
        return messages if all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        self.socket.close()


@dataclasses.dataclass(frozen=True)
class Lost:
    """First process that was lost: its index and what was observed."""

    process: int
    why: str


class PeerLink:
    """Connections between process 0 and all others during a run.

    Nothing is ended because of them. They answer which process was lost first.

    Args:
        process: index of this process.
        connections: by index of the process at the other end.
        hosts: host of every process.
    """

    def __init__(self, process: int, connections: dict[int, _Connection], hosts: tuple[str, ...]):
        self.process, self.hosts = process, hosts
        self._connections = dict(connections)
        self._lost: Lost | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="peer-link", daemon=True)
        self._thread.start()

    def first_lost(self, timeout: float) -> Lost | None:
        """Returns the process that was lost first; waits up to `timeout` seconds for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None, timeout)
            return self._lost

    def report_lost(self, process: int, why: str) -> None:
        """Records a lost process, unless another one was lost before, and tells the others."""
        with self._changed:
            if self._lost is not None:
                return
            self._lost = Lost(process, why)
            self._changed.notify_all()
        for connection in list(self._connections.values()):
            connection.send(lost=process, why=why)

    def leave(self, why: str | None = None) -> None:
        """Tells the others that this process ends, and why unless it has finished."""
        for connection in list(self._connections.values()):
            connection.send(leaving=why)

    def close(self) -> None:
        """Closes the connections, for the others without a reason."""
        self.leave()
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _watch(self) -> None:
        connections = self._connections
        while connections:
            by_number = {connection.fileno(): i for i, connection in connections.items()}
            for number in select.select(list(by_number), [], [])[0]:
                other = by_number[number]
                messages = connections[other].receive()
                if messages is None:
                    connections.pop(other).close()
                    self.report_lost(other, "its connection closed")
                    continue
                for message in messages:
                    if "lost" in message:
                        self.report_lost(int(message["lost"]), str(message.get("why")))
                    elif "leaving" in message:
                        connections.pop(other).close()
                        if message["leaving"] is not None:
                            self.report_lost(other, str(message["leaving"]))
                        break


def call_roll(address: str, *, process: int, count: int, seconds: float) -> PeerLink:
    """Waits until all processes have come.

    Args:
        address: HOST:PORT of process 0.
        process: index of this process.
        count: number of processes.
        seconds: time limit.

    Raises:
        LostPeerError: some did not come in time; a `CoordinatorAddressError` if the address cannot
            be used.
        UserError: two processes have the same index, or different numbers of processes.
    """
    if not 0 < split_address(address)[1] < 1 << 16:
        raise CoordinatorAddressError(
            f"--distributed.coordinator is {address!r}; expected a port from 1 to 65535"
        )
    deadline = time.monotonic() + seconds
    limit = f"--distributed.start-seconds {seconds:g}"
    if process == 0:
        return _Host(address, count, deadline, limit).gather()
    return _join(address, process, count, deadline, limit)


def _own_host() -> str:
    return _printable(socket.gethostname())


def _printable(host: object) -> str:
    return re.sub(r"[^\w.:-]", "?", str(host))[:255]


class _Host:
    """Roll call in process 0."""

    def __init__(self, address: str, count: int, deadline: float, limit: str):
        self._address, self._count = address, count
        self._deadline, self._limit = deadline, limit
        self._hosts = {0: _own_host()}
        self._present: dict[int, _Connection] = {}
        self._waiting: list[_Connection] = []  # Connected, without a name so far.

    def _listen(self) -> socket.socket:
        _, port = split_address(self._address)
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
                )
            return socket.create_server(("", port), backlog=128)
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise CoordinatorAddressError(
                f"the port of --distributed.coordinator {self._address} cannot be opened ({why}); "
                "end the program that uses it or choose another port"
            ) from error

    def gather(self) -> PeerLink:
        with self._listen() as listener:
            while len(self._present) < self._count - 1:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._give_up()
                connections = [*self._waiting, *self._present.values()]
                ready = select.select([listener, *connections], [], [], min(left, 1))[0]
                for connection in connections:
                    if connection in ready:
                        self._hear(connection)
                if listener in ready:
                    self._waiting.append(_Connection(listener.accept()[0]))
        hosts = tuple(self._hosts[i] for i in range(self._count))
        for connection in self._waiting:
            connection.close()
        for connection in self._present.values():
            connection.send(hosts=hosts)
        return PeerLink(0, self._present, hosts)

    def _hear(self, connection: _Connection) -> None:
        messages = connection.receive()
        if messages == []:
            return
        known = next((i for i, other in self._present.items() if other is connection), None)
        if known is not None:
            # It left again, and may come back.
            del self._present[known]
            connection.close()
            return
        self._waiting.remove(connection)
        hello = messages[0] if messages else {}
        if hello.get("magic") != _MAGIC:
            connection.close()
            return
        refusal = self._refusal(hello)
        if refusal:
            connection.send(refused=refusal)
            connection.close()
            return
        self._present[hello["process"]] = connection
        self._hosts[hello["process"]] = _printable(hello.get("host"))

    def _refusal(self, hello: dict[str, Any]) -> str | None:
        process, count = hello.get("process"), hello.get("count")
        if count != self._count:
            return (
                f"--distributed.num-processes is {count!r}; expected {self._count}, the value of "
                "process 0"
            )
        taken = process in self._present
        if not isinstance(process, int) or not 0 < process < self._count or taken:
            where = f", which host {self._hosts[process]} has already" if taken else ""
            return f"--distributed.process-id is {process!r}{where}; expected one per process"
        return None

    def _give_up(self) -> None:
        missing = tuple(i for i in range(1, self._count) if i not in self._present)
        why = f"did not connect to {self._address} within {self._limit}"
        for connection in self._present.values():
            connection.send(missing=missing, why=why)
        for connection in (*self._present.values(), *self._waiting):
            connection.close()
        raise LostPeerError(why, missing)


class _Joining:
    """One attempt to join; use as a context manager that closes the connection on failure."""

    def __init__(self, address: str, deadline: float):
        host, port = split_address(address)
        left = max(min(deadline - time.monotonic(), 5), 0.1)
        self.connection = _Connection(socket.create_connection((host, port), timeout=left))
        self.joined = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.joined:
            self.connection.close()


def _join(address: str, process: int, count: int, deadline: float, limit: str) -> PeerLink:
    """Roll call in another process: connects to process 0, as often as it takes."""
    why = "nothing answers there"
    while time.monotonic() < deadline:
        try:
            with _Joining(address, deadline) as attempt:
                attempt.connection.send(
                    magic=_MAGIC, process=process, count=count, host=_own_host()
                )
                # Process 0 names the missing ones at its own deadline.
                answer = _await_answer(attempt.connection, deadline + _GRACE_SECONDS)
                if answer is not None:
                    attempt.joined = True
                    hosts = tuple(_printable(host) for host in answer)
                    return PeerLink(process, {0: attempt.connection}, hosts)
            why = "what answers there is not process 0 of a run, or it ended"
        except socket.gaierror as error:
            why = f"the host cannot be resolved ({error.strerror})"
        except OSError as error:
            why = f"nothing answers there ({(error.strerror or str(error)).lower()})"
        time.sleep(_RETRY_SECONDS)
    raise LostPeerError(f"did not answer at {address} within {limit}: {why}", (0,))


def _await_answer(connection: _Connection, deadline: float) -> Iterable[str] | None:
    """Returns the hosts of all processes, or None if the other end does not call the roll."""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([connection], [], [], left)[0]:
            return None
        messages = connection.receive()
        if messages is None:
            return None
        for message in messages:
            if "refused" in message:
                raise UserError(str(message["refused"]))
            if "missing" in message:
                raise LostPeerError(str(message["why"]), tuple(message["missing"]))
            return message.get("hosts")
    return None
