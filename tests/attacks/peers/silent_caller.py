"""A caller of the control service that begins calls and never says what it wants.

`announced` opens calls with any certificate and sends no request. For other misuse open a
`channel` and call any method by its path, with any bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from server.pki.identity import Credentials


@asynccontextmanager
async def channel(port: int, identity: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A connection with the certificate in a folder, whatever it is for."""
    own = Credentials.read(identity)
    credentials = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as opened:
        await opened.channel_ready()
        yield opened


@asynccontextmanager
async def announced(port: int, identity: Path, method: str, count: int) -> AsyncIterator[None]:
    """So many calls of a method, announced and left at that until the block ends."""
    async with channel(port, identity) as opened:
        calls = [opened.stream_stream(method)() for _ in range(count)]
        for call in calls:
            # The head of each is with the server, or it has been refused.
            await asyncio.wait({asyncio.ensure_future(call.wait_for_connection())}, timeout=1.0)
        try:
            yield
        finally:
            for call in calls:
                call.cancel()
