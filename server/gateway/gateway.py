"""The TLS gateway: the one port that sites reach, before SuperLink and enrolment.

Sites may post to Flower's Fleet routes and to the enrolment service, ask whether they are
registered, ask for a network or the release, and tell figures for common scales; anyone may ask
whether the server works. A Fleet route takes a site's certificate, signed by the authority and not
revoked, together with the key that this very site has registered: neither is enough alone. Every
other request is refused here and never forwarded.

It runs as a process of its own that never sees the authority's key.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from f2l_fed.wire.enrolment import (
    AUTHORITY,
    CERTIFICATE,
    ENROL_PATH,
    KEY,
    LARGEST_FIGURES_BYTES,
    LARGEST_FORM_BYTES,
    NETWORK_PATH,
    RELEASE_PATH,
    RENEW_PATH,
    SCALES_PATH,
    SELF_PATH,
)
from server.gateway.places import Place, Places
from server.gateway.proxy_connection import ProxyConnection, Upstream
from server.gateway.site_auth import SiteAuth

HANDSHAKE_S = 10.0
UNKNOWN_SITE_S = 30.0
"""Longest connection of an unknown site, one that shows no certificate of a site."""

_FLEET = re.compile(r"/v1/fleet/[a-z-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The settings of a gateway.

    Args:
        root: The federation's folder.
        listen: Address and port.
        superlink: Port of the SuperLink on loopback, with TLS.
        enrolment: Unix socket of the enrolment service.
        secret: File with the secret of the SuperLink.
        largest_body_bytes: Largest request.
        largest_context_bytes: Largest one with a context, for which a network is generated.
        connections: Most connections at a time; those without a site's certificate get a part of
            them, see `server.gateway.places`.
        connections_per_host: Most at a time from one address (of IPv6, one /64), and of one site.
    """

    root: Path
    listen: tuple[str, int]
    superlink: int
    enrolment: str
    secret: str
    largest_body_bytes: int = 2**28
    largest_context_bytes: int = 2**24
    connections: int = 1000
    connections_per_host: int = 100

    @property
    def certificates(self) -> Path:
        """The authority's folder."""
        return self.root / "certificates"


class Gateway:
    """Accepts connections, authenticates their sites and forwards their requests.

    Args:
        settings: The services behind it, and its limits.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._auth = SiteAuth(settings.root)
        self._open: set[asyncio.Task[None]] = set()
        self._places = Places(
            connections=settings.connections, per_host=settings.connections_per_host
        )
        self._tls = _server_tls(settings.certificates)
        self._tls_read = self._tls_version()
        authority = settings.certificates / AUTHORITY
        self._superlink = Upstream(
            port=settings.superlink,
            tls=ssl.create_default_context(cafile=authority),
            secret=Path(settings.secret).read_bytes().strip(),
        )
        self._enrolment = Upstream(socket=settings.enrolment, tls=None)
        self._networks = Upstream(socket=settings.enrolment, tls=None, names_site=True)

    async def accept(self, listener: socket.socket) -> None:
        """Accepts connections until it is cancelled; those over a limit are closed at once."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError:
                    # Out of file handles, or the other side has gone: others still come.
                    await asyncio.sleep(0.05)
                    continue
                # Without a pause, a flood of connections would keep all others waiting.
                await asyncio.sleep(0)
                place = self._places.take(str(address[0]))
                if place is None:
                    connection.close()
                    continue
                task = asyncio.create_task(self._serve_connection(connection, place))
                place.give_way = partial(_end_at_once, connection, task)
                self._open.add(task)
                task.add_done_callback(self._open.discard)
                # One that gives way before its task has begun is closed by nobody else.
                task.add_done_callback(partial(_close, connection))
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve_connection(self, connection: socket.socket, place: Place) -> None:
        try:
            reader, writer = await self._handshake(connection)
            site = self._auth.site_of(writer.get_extra_info("ssl_object"))
            proxied = ProxyConnection(reader=reader, writer=writer, route=self._route, site=site)
            try:
                if site is None or not self._auth.is_registered(site):
                    async with asyncio.timeout(UNKNOWN_SITE_S):
                        await proxied.run()
                elif self._places.authenticate(place, site.name):
                    await proxied.run()
            finally:
                await proxied.close()
        except (OSError, TimeoutError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # The client is slow, gone or speaks no TLS; it gets no other answer.
        finally:
            self._places.free(place)

    async def _handshake(
        self, connection: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        # asyncio does so only for sockets that it has made itself.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(limit=2**16)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self._current_tls(),
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=2.0,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _route(
        self, method: str, path: str, proxied: ProxyConnection
    ) -> tuple[Upstream, int] | int:
        """The service for a request and its largest size, or the status that refuses it."""
        if method == "GET" and path == "/health":
            return self._superlink, 0
        reads = path == SELF_PATH and method == "GET"
        if reads or (path == RELEASE_PATH and method in ("GET", "HEAD")):
            return (self._networks, 0) if self._auth.is_registered(proxied.site) else 401
        if method in ("GET", "POST") and path == NETWORK_PATH:
            largest_bytes = self._settings.largest_context_bytes if method == "POST" else 0
            known = self._auth.is_registered(proxied.site)
            return (self._networks, largest_bytes) if known else 401
        if method == "POST" and path == SCALES_PATH:
            known = self._auth.is_registered(proxied.site)
            return (self._networks, LARGEST_FIGURES_BYTES) if known else 401
        if method == "POST" and path in (ENROL_PATH, RENEW_PATH):
            return self._enrolment, LARGEST_FORM_BYTES
        if not _FLEET.fullmatch(path):
            return 404
        if method != "POST":
            return 405
        # Flower's SuperNode ends on this status, and its daemon asks again and again.
        if not self._auth.authorizes(proxied.site, proxied.key):
            return 401
        return self._superlink, self._settings.largest_body_bytes

    def _current_tls(self) -> ssl.SSLContext:
        if (version := self._tls_version()) != self._tls_read:
            with suppress(ssl.SSLError, OSError):  # half renewed: the next connection tries again
                self._tls = _server_tls(self._settings.certificates)
                self._tls_read = version
        return self._tls

    def _tls_version(self) -> tuple[int, ...]:
        own = self._settings.certificates / "server"
        return tuple((own / name).stat().st_mtime_ns for name in (CERTIFICATE, KEY))


def _close(connection: socket.socket, _: asyncio.Task[None]) -> None:
    connection.close()


def _end_at_once(connection: socket.socket, task: asyncio.Task[None]) -> None:
    # Shut down first: what is still to be sent must not keep the connection open.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    task.cancel()


def _server_tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates / "server" / CERTIFICATE, certificates / "server" / KEY)
    # A new site has no certificate yet, so one is asked for and not demanded; a bad one is refused.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(certificates / AUTHORITY)
    return context


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; at ``::`` for IPv4 too, where the system can do both."""
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512, dualstack_ipv6=both)


@asynccontextmanager
async def serve_gateway(settings: GatewaySettings) -> AsyncIterator[int]:
    """Serves until the block ends; yields the port.

    Raises:
        OSError: If the address can't be listened on.
    """
    with listening(*settings.listen) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(Gateway(settings).accept(listener))
        try:
            yield listener.getsockname()[1]
        finally:
            accepting.cancel()
            with suppress(asyncio.CancelledError):
                await accepting


async def _serve(settings: GatewaySettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve_gateway(settings) as port:
        print(f"listening on {settings.listen[0]}:{port}", flush=True)
        await stop.wait()


def main() -> None:
    """Runs the process; its one argument is a JSON file with the settings."""
    values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    host, port = values.pop("listen")
    settings = GatewaySettings(root=Path(values.pop("root")), listen=(host, port), **values)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        asyncio.run(_serve(settings))
    except OSError as error:
        sys.exit(f"the gateway can't listen on {host}:{port}: {error.strerror}")


if __name__ == "__main__":
    main()
