"""A web page that reaches a service on loopback under the page's own name (DNS rebinding).

A browser that has resolved ``evil.example`` to 127.0.0.1 sends that name as Host, and lets the page
read the answer. How to write the next one: give `asked` the raw value of the header, or None for
none; add a name to `FOREIGN_HOSTS` that a service might take for its own.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from tests.support.waiting import PATIENCE_S

FOREIGN_HOSTS: tuple[str | None, ...] = (
    "evil.example",
    "evil.example:8765",
    "localhost.evil.example",
    "127.0.0.1.evil.example:80",
    "127.0.0.1@evil.example",
    "localhost:80@evil.example",
    "evil.example#localhost",
    "[::1].evil.example",
    "localhost\r\nHost: evil.example",
    "",
    None,
)
"""Host headers of foreign pages, and malformed ones."""

OWN_HOSTS = ("localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost", "127.0.0.1:9999")
"""Host headers under which a service on loopback is asked, also through a tunnel."""


def asked(port: int, path: str, host: str | None) -> tuple[int, str]:
    """Status and text that a request with this Host header gets; HTTP/1.0, so it may have none."""
    header = "" if host is None else f"Host: {host}\r\n"
    reply = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n{header}\r\n".encode())
        with suppress(ConnectionError):
            while piece := connection.recv(2**16):
                reply += piece
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode(errors="replace")
