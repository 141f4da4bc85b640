"""What the processes of a run tell each other beside JAX: who joined, who is gone, what is agreed.

A star of TCP connections: everybody tells process 0, which passes it on. JAX has such a service
too, but a start without a peer or the death of one ends there, minutes later, in an abort of the
C++ runtime that names nobody.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

BEAT_SECONDS = 2.0  # everybody says so often that it is alive
SILENCE_SECONDS = 30.0  # and counts as gone after so long without a word
RETRY_SECONDS = 0.2
HELLO_SECONDS = 10.0  # from a connection to its first message
MAX_LINE = 2**24  # bytes of one message

Lost = Callable[[int, str, int], None]  # number of the process, what is known, its exit code or -1


class Channel:
    """The connections of one process; use `join` to make it.

    Facts are values by name that a process publishes once or more; all processes see all of them.
    """

    def __init__(self, index: int, count: int, peers: dict[int, socket.socket]) -> None:
        """Take over connected sockets, by process: of all others in process 0, else of 0 alone."""
        self.index, self.count = index, count
        self.on_fact: Callable[[str], None] = lambda name: None
        self.on_lost: Lost = lambda number, reason, code: None
        self._peers, self._changed = peers, threading.Condition()
        self._sending = {number: threading.Lock() for number in peers}
        self._facts: dict[int, dict[str, Any]] = {number: {} for number in range(count)}
        self._heard = dict.fromkeys(peers, time.monotonic())
        self._left: set[int] = set()
        self._lost: set[int] = set()
        self._closed = threading.Event()

    def start(self) -> None:
        """Listen and beat in the background."""
        for number in self._peers:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def publish(self, name: str, value: Any) -> None:
        """Tell everybody a fact of this process, any value of JSON."""
        self._learn(self.index, name, value)
        self._tell({"from": self.index, "name": name, "value": value})

    def facts(self, name: str) -> dict[int, Any]:
        """Values of a fact by process, of those that have published it."""
        with self._changed:
            return {n: facts[name] for n, facts in self._facts.items() if name in facts}

    def gather(self, name: str, timeout: float) -> list[Any]:
        """Values of a fact of all processes, in their order; waits for them.

        Raises:
          ConnectionError: some do not publish it in time, or are gone; names them.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._lost or all(name in facts for facts in self._facts.values()), timeout
            )
            missing = [n for n, facts in self._facts.items() if name not in facts]
        if missing:
            named = ", ".join(map(self.describe, missing))
            raise ConnectionError(f"{named}: no word of {name!r} within {timeout:.0f} s")
        return list(self.facts(name).values())

    def describe(self, number: int) -> str:
        """A process in words: number and host."""
        host = self.facts("host").get(number)
        return f"process {number}" + (f" ({host})" if host else "")

    def close(self, code: int = 0) -> None:
        """Say goodbye; with an exit code other than 0 the others count this process as lost."""
        if not self._closed.is_set():
            self._tell({"from": self.index, "bye": code})
        self._closed.set()
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_WR)

    def _learn(self, number: int, name: str, value: Any) -> None:
        with self._changed:
            self._facts[number][name] = value
            self._changed.notify_all()
        self.on_fact(name)

    def _tell(self, message: dict[str, Any], except_process: int = -1) -> None:
        line = json.dumps(message).encode() + b"\n"
        for number, peer in self._peers.items():
            if number != except_process:
                with self._sending[number], contextlib.suppress(OSError):
                    peer.sendall(line)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self._tell({})
            for number, heard in self._heard.items():
                if time.monotonic() - heard > SILENCE_SECONDS:
                    self._lose(number, f"not heard for {SILENCE_SECONDS:.0f} s", -1)

    def _listen(self, number: int) -> None:
        """Take the messages of one connection, until it ends."""
        for message in _messages(self._peers[number]):
            self._heard[number] = time.monotonic()
            self._take(number, message)
        if number not in self._left:
            self._lose(number, "its connection ended", -1)

    def _take(self, number: int, message: dict[str, Any]) -> None:
        if message and self.index == 0:
            self._tell(message, except_process=number)
        if "name" in message:
            self._learn(message["from"], message["name"], message["value"])
        elif "bye" in message:
            self._left.add(message["from"])
            if message["from"] == 0:
                self._left.update(range(self.count))  # nobody passes anything on from now on
            if message["bye"]:
                self._lose(message["from"], f"it ended with code {message['bye']}", message["bye"])
        elif "lost" in message:
            self._lose(message["lost"], message["reason"], message["code"])

    def _lose(self, number: int, reason: str, code: int) -> None:
        with self._changed:
            known = number in self._lost or self._closed.is_set() or number == self.index
            if known or (number in self._left and code <= 0):
                return
            self._lost.add(number)
            self._changed.notify_all()
        if self.index == 0:
            self._tell({"lost": number, "reason": reason, "code": code}, except_process=number)
        self.on_lost(number, reason, code)


def join(address: str, index: int, count: int, timeout: float) -> Channel:
    """Meet the other processes; return when all `count` are there.

    Args:
      address: "host:port" at which process 0 listens.

    Raises:
      ConnectionError: not all came in time; names those that are missing.
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + timeout
    meet = _gather_members if index == 0 else _find_hub
    peers = meet(host, int(port), index, count, until)
    channel = Channel(index, count, peers)
    channel.start()
    channel.publish("host", socket.gethostname())
    return channel


def _gather_members(
    host: str, port: int, index: int, count: int, until: float
) -> dict[int, socket.socket]:
    """Process 0: wait for all others; tell them that all are there, or who is missing."""
    del host, index
    members: dict[int, socket.socket] = {}
    hosts = {0: socket.gethostname()}
    with _listening(port, count) as server:
        while len(members) < count - 1:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                member, _ = server.accept()
            except TimeoutError:
                break
            hello: dict[str, Any] = {}
            with contextlib.suppress(OSError):  # somebody else, who says nothing
                hello = _first_message(member, HELLO_SECONDS)
            reason = _reason_to_refuse(hello, count, hosts)
            if reason:
                _send(member, {"refused": reason})
                member.close()
                continue
            members[hello["process"]], hosts[hello["process"]] = member, hello["host"]
    missing = [str(number) for number in range(count) if number not in hosts]
    if missing:
        here = ", ".join(f"{number} ({hosts[number]})" for number in sorted(hosts))
        reason = f"process(es) {', '.join(missing)} of {count} did not join in time; here: {here}"
        for member in members.values():
            _send(member, {"refused": reason})
        raise ConnectionError(reason)
    for member in members.values():
        _send(member, {"welcome": count})
    return members


def _listening(port: int, count: int) -> socket.socket:
    try:
        return socket.create_server(("", port), backlog=count)
    except OSError as error:
        raise ConnectionError(
            f"process 0 cannot listen at port {port}, the one after the coordinator's: "
            f"{error.strerror}"
        ) from error


def _reason_to_refuse(hello: dict[str, Any], count: int, hosts: dict[int, str]) -> str:
    number, host = hello.get("process"), hello.get("host")
    if hello.get("count") != count:
        return f"it expects {hello.get('count')} processes, process 0 expects {count}"
    if type(number) is not int or not 0 < number < count:
        return f"process number {number!r}, allowed: 1 to {count - 1}"
    if number in hosts:
        return f"process {number} is here already, from {hosts[number]} (this one: {host})"
    return ""


def _find_hub(
    host: str, port: int, index: int, count: int, until: float
) -> dict[int, socket.socket]:
    """Other processes: find process 0 and wait until it says that all are there."""
    hello = {"process": index, "count": count, "host": socket.gethostname(), "pid": os.getpid()}
    while time.monotonic() < until:
        try:
            hub = socket.create_connection((host, port), timeout=until - time.monotonic())
            _send(hub, hello)
            # its answer comes when all are there or its own time is up
            answer = _first_message(hub, until - time.monotonic() + SILENCE_SECONDS)
        except OSError:
            time.sleep(RETRY_SECONDS)
            continue
        if "refused" in answer:
            raise ConnectionError(answer["refused"])
        if "welcome" in answer:
            return {0: hub}
        time.sleep(RETRY_SECONDS)
    raise ConnectionError(
        f"process {index} found no process 0 at {host}:{port} in time; is the same command running "
        "there, and are the coordinator's port and the one after it open?"
    )


def _send(peer: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(json.dumps(message).encode() + b"\n")


def _first_message(peer: socket.socket, timeout: float) -> dict[str, Any]:
    """One message, and not a byte of the next; {} where the connection ends.

    Raises:
      TimeoutError: no message for `timeout` seconds.
    """
    peer.settimeout(max(timeout, 0.01))
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        byte = peer.recv(1)
        if not byte:
            return {}
        line += byte
    peer.settimeout(None)
    return _parse(line) or {}


def _messages(peer: socket.socket) -> Iterator[dict[str, Any]]:
    """Messages of a connection until it ends; a line that is none ends it too."""
    rest = b""
    while len(rest) < MAX_LINE:
        *lines, rest = rest.split(b"\n")
        for line in lines:
            message = _parse(line)
            if message is None:
                return
            yield message
        try:
            part = peer.recv(2**16)
        except OSError:
            return
        if not part:
            return
        rest += part


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
