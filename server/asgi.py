"""An ASGI app inside a process that does other work too, on a port or on a closed socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn


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


class _Quiet(uvicorn.Server):
    """A server that leaves signals to its process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
