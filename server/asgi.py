"""An ASGI app inside a process that does other work too: its socket, the hosts it answers for."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from f2l_fed.core.addresses import is_host_of
from f2l_fed.errors import WireError


def listen_on_socket(path: Path) -> socket.socket:
    """Listens on a Unix socket that only this user reaches; one that was left there is replaced.

    Args:
        path: The socket, in an existing folder; of any length.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    folder, mask = os.open(path.parent, os.O_PATH), os.umask(0o177)
    try:
        # The name of a socket may have 107 bytes, and a folder's path has often more.
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        listener.listen()
    finally:
        os.umask(mask)
        os.close(folder)
    return listener


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serves an app on a socket that listens, until the block ends."""
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, ws="none", timeout_graceful_shutdown=2
    )
    server = _Quiet(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def limited_body(request: Request, largest_bytes: int) -> bytes:
    """The body of a request.

    Raises:
        WireError: If it is larger.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > largest_bytes:
            raise WireError("the request is too large", expected=f"at most {largest_bytes} B")
    return bytes(body)


class HostCheck:
    """Middleware that answers requests for hosts of other names with 421.

    A page in somebody's browser can reach an app on loopback under the page's own name, if its name
    server says so, and could then read the answers as its own.

    Args:
        app: The app.
        names: Names beside those of loopback, in lower case.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not is_host_of(hosts[0], self._names):
                text = "Not served under this name; for the dashboard see [server] dashboard_hosts."
                await PlainTextResponse(f"{text}\n", status_code=421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Quiet(uvicorn.Server):
    """A server that leaves signals to its process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
