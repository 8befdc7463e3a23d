"""A proxied connection: its requests are checked, forwarded and answered, in order."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import h11

from f2l_fed.flower.inner_access import SECRET_HEADER
from f2l_fed.wire.enrolment import SITE_HEADER
from server.gateway.site_auth import AuthenticatedSite

LARGEST_HEAD_BYTES = 16 * 1024
IDLE_S = 75.0
"""Longest pause between two requests of a connection."""

PAUSE_S = 30.0
"""Longest pause between two pieces of a request or of an answer."""

CLOSE_S = 2.0
"""Longest wait for the end of a connection."""

WHOLE_S = 600.0
"""Longest time for a request with its answer."""

KEY_HEADER = b"flwr-public-key"

_PIECE_BYTES = 2**16
# Not forwarded: they concern one connection only, or only the gateway may set them.
_DROPPED = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"host"}
    | {b"forwarded", b"x-forwarded-for", SECRET_HEADER.encode(), SITE_HEADER.encode(), b"expect"}
)

Route = Callable[[str, str, "ProxyConnection"], "tuple[Upstream, int] | int"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A service of this machine.

    Args:
        port: Its port on loopback; 0 for one with a socket.
        tls: How its certificate is verified; None speaks plainly.
        secret: Secret that it requires, sent only to its verified certificate; b"" for none.
        socket: Its Unix socket; "" for one with a port.
        names_site: Whether it is told the site that has been authenticated.
    """

    port: int = 0
    tls: ssl.SSLContext | None
    secret: bytes = b""
    socket: str = ""
    names_site: bool = False


class ProxyConnection:
    """The connection of a client, with its own connections to the services behind the gateway.

    Args:
        reader: From the client.
        writer: To the client.
        route: Chooses the service for a request, or the status that refuses it.
        site: The site that the certificate names; None for an unknown site.
    """

    def __init__(
        self,
        *,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        route: Route,
        site: AuthenticatedSite | None,
    ) -> None:
        self.site = site
        self.key = b""
        """Public key that the present request claims."""
        self._reader, self._writer, self._route = reader, writer, route
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD_BYTES)
        self._upstreams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def run(self) -> None:
        """Serves requests until either side is done."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    request = await self._next()
                if not isinstance(request, h11.Request):
                    return
                async with asyncio.timeout(WHOLE_S):
                    await self._handle(request)
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint or 400)
                return
            except _Refused as refusal:
                await self._refuse(refusal.status)
                return
            if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is h11.MUST_CLOSE:
                return
            try:
                self._http.start_next_cycle()
            except h11.LocalProtocolError:
                return

    async def close(self) -> None:
        """Ends the connection, after what is still to be sent, and those to the services."""
        for _, writer in self._upstreams.values():
            writer.close()
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), CLOSE_S)
        except (OSError, TimeoutError):
            pass
        finally:
            self._writer.transport.abort()

    async def _handle(self, request: h11.Request) -> None:
        method = request.method.decode("ascii")
        path, _, query = request.target.decode("ascii").partition("?")
        keys = [value for name, value in request.headers if name == KEY_HEADER]
        self.key = keys[0] if len(keys) == 1 else b""
        found = 404 if query else self._route(method, path, self)
        if isinstance(found, int):
            raise _Refused(found)
        upstream, largest_bytes = found
        lengths = [value for name, value in request.headers if name == b"content-length"]
        if lengths and int(lengths[0]) > largest_bytes:
            raise _Refused(413)
        if self._http.they_are_waiting_for_100_continue:
            await self._tell(h11.InformationalResponse(status_code=100, headers=[]))
        try:
            reader, writer = await self._reach(upstream)
            await self._forward(request, upstream, reader, writer, largest_bytes)
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            if isinstance(error, h11.RemoteProtocolError) and self._client_erred():
                raise
            self._drop(upstream)
            # Sites take this status as a reason to try again.
            raise _Refused(502) from error

    def _client_erred(self) -> bool:
        return self._http.their_state is h11.ERROR

    async def _forward(
        self,
        request: h11.Request,
        upstream: Upstream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        largest_bytes: int,
    ) -> None:
        outgoing = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD_BYTES)
        headers = [(name, value) for name, value in request.headers if name not in _DROPPED]
        headers.append((b"host", b"localhost:%d" % upstream.port))
        if upstream.secret:
            headers.append((SECRET_HEADER.encode(), upstream.secret))
        if upstream.names_site and self.site is not None:
            headers.append((SITE_HEADER.encode(), self.site.name.encode()))
        forwarded = h11.Request(method=request.method, target=request.target, headers=headers)
        await _send(outgoing, writer, forwarded)
        size = 0
        while isinstance(event := await self._next_piece(), h11.Data):
            size += len(event.data)
            if size > largest_bytes:
                self._drop(upstream)
                raise _Refused(413)
            await _send(outgoing, writer, event)
        await _send(outgoing, writer, h11.EndOfMessage())
        started = False
        while True:
            reply = await _receive(outgoing, reader)
            if isinstance(reply, h11.InformationalResponse):
                continue
            if isinstance(reply, h11.Response):
                kept = [(name, value) for name, value in reply.headers if name not in _DROPPED]
                reply = h11.Response(status_code=reply.status_code, headers=kept)
                started = True
            if not isinstance(reply, h11.Response | h11.Data | h11.EndOfMessage):
                raise ConnectionError("the service has closed the connection")
            await self._tell(reply)
            if isinstance(reply, h11.EndOfMessage):
                break
        if (
            not started
            or outgoing.our_state is not h11.DONE
            or outgoing.their_state is not h11.DONE
        ):
            self._drop(upstream)

    async def _reach(self, upstream: Upstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        known = self._upstreams.get(upstream.port)
        if known is not None:
            if not known[0].at_eof() and not known[1].is_closing():
                return known
            self._drop(upstream)
        name = "localhost" if upstream.tls else None
        opening = (
            asyncio.open_unix_connection(upstream.socket)
            if upstream.socket
            else asyncio.open_connection(
                "127.0.0.1", upstream.port, ssl=upstream.tls, server_hostname=name
            )
        )
        made = await asyncio.wait_for(opening, 10.0)
        self._upstreams[upstream.port] = made
        return made

    def _drop(self, upstream: Upstream) -> None:
        if known := self._upstreams.pop(upstream.port, None):
            known[1].close()

    async def _next_piece(self) -> Any:
        async with asyncio.timeout(PAUSE_S):
            event = await self._next()
        if isinstance(event, h11.Data | h11.EndOfMessage):
            return event
        raise ConnectionError("the client has closed the connection")

    async def _next(self) -> Any:
        return await _receive(self._http, self._reader)

    async def _tell(self, event: Any) -> None:
        await _send(self._http, self._writer, event)

    async def _refuse(self, status: int) -> None:
        """Answers with a status and ends the connection, even with a part of the request unread."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = f"{HTTPStatus(status).phrase}\n".encode()
        headers = [("content-length", str(len(body))), ("connection", "close")]
        # A site compares its clock with this header.
        headers.append(("date", formatdate(usegmt=True)))
        try:
            await self._tell(h11.Response(status_code=status, headers=headers))
            await self._tell(h11.Data(data=body))
            await self._tell(h11.EndOfMessage())
        except h11.LocalProtocolError:
            return
        await self._linger()

    async def _linger(self) -> None:
        """Reads some of the rest of a request: closed before, the answer could be lost."""
        if self._http.their_state is h11.SEND_BODY:
            with suppress(h11.RemoteProtocolError):
                while isinstance(self._http.next_event(), h11.Data):
                    pass
        # After a malformed request, its end is unknown.
        if self._http.their_state not in (h11.SEND_BODY, h11.ERROR):
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                for _ in range(64):
                    if not await self._reader.read(_PIECE_BYTES):
                        return
        except TimeoutError:
            return


class _Refused(Exception):
    """A request that is answered with a status and not forwarded."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def _receive(http: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(None if http.our_role is h11.SERVER else WHOLE_S):
            http.receive_data(await reader.read(_PIECE_BYTES))
    return event


async def _send(http: h11.Connection, writer: asyncio.StreamWriter, event: Any) -> None:
    data = http.send(event)
    if data:
        writer.write(data)
    async with asyncio.timeout(PAUSE_S):
        await writer.drain()
