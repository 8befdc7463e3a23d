"""Peers that open connections and say nothing, or too little, and open new ones when closed.

How to write the next one: an attacker of this kind is a function `opening` that takes a fresh TCP
connection and does what it wants with it before it falls silent. `besieging` keeps a number of such
connections open from some addresses until its block ends, whatever the other side closes; it yields
a `Siege`. Everything runs in one thread, on loopback.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

Opening = Callable[[socket.socket], socket.socket]

_POLL_S = 0.05


def silent(connection: socket.socket) -> socket.socket:
    """Says nothing at all."""
    return connection


def half_a_hello(connection: socket.socket) -> socket.socket:
    """Begins a TLS handshake and stops in it."""
    connection.sendall(b"\x16\x03\x01\x02")
    return connection


def slow_request(authority: Path) -> Opening:
    """An opening that completes the handshake without a certificate and begins a request."""
    context = ssl.create_default_context(cafile=authority)

    def opening(connection: socket.socket) -> socket.socket:
        connection.settimeout(5.0)
        secure = context.wrap_socket(connection, server_hostname="localhost")
        secure.sendall(b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n")
        secure.setblocking(False)
        return secure

    return opening


def idle_site(authority: Path, folder: Path) -> Opening:
    """An opening that shows a site's certificate and asks for nothing."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    def opening(connection: socket.socket) -> socket.socket:
        connection.settimeout(5.0)
        return context.wrap_socket(connection, server_hostname="localhost")

    return opening


@dataclass(slots=True)
class Siege:
    """An attack that goes on.

    Args:
        open_now: Number of connections that are open.
        attempts: Number of connections that were opened or tried.
    """

    open_now: int = 0
    attempts: int = 0


@contextmanager
def besieging(
    port: int, sources: Sequence[str], count: int, opening: Opening = silent
) -> Iterator[Siege]:
    """Keeps connections open until the block ends.

    Args:
        port: The attacked port on loopback.
        sources: Addresses that they come from, in turn.
        count: Number of connections to keep open.
        opening: What each does first.

    Yields:
        The state of the attack.
    """
    siege = Siege()
    open_now: dict[socket.socket, str] = {}
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            for _ in range(count - len(open_now)):
                if over.is_set():
                    break
                source = sources[siege.attempts % len(sources)]
                siege.attempts += 1
                with suppress(OSError):
                    plain = socket.create_connection(
                        ("127.0.0.1", port), timeout=5.0, source_address=(source, 0)
                    )
                    try:
                        made = opening(plain)
                    except OSError:
                        plain.close()
                        raise
                    made.setblocking(False)
                    open_now[made] = source
                    siege.open_now = len(open_now)
            poll = select.poll()
            by_number = {made.fileno(): made for made in open_now}
            for number in by_number:
                poll.register(number, select.POLLIN | select.POLLHUP)
            for number, _ in poll.poll(_POLL_S * 1000):
                made = by_number[number]
                try:
                    ended = made.recv(4096) == b""
                except (BlockingIOError, ssl.SSLWantReadError):
                    ended = False
                except OSError:
                    ended = True
                if ended:
                    del open_now[made]
                    made.close()
            siege.open_now = len(open_now)
            time.sleep(0.001)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield siege
    finally:
        over.set()
        thread.join()
        for made in open_now:
            made.close()
