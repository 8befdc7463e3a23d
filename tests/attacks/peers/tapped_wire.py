"""A wire between sites and their server that reads along: TLS ends here and begins again.

It has the keys of both ends, as nobody else has: towards a site it is the server, and towards the
gateway it is the site whose certificate was shown. So every byte of every request passes here in
the clear, with its headers. Sites are given its port as the server's address::

    with tapped(port, gateway_port, certificates, {"north": folder_of_north}) as wire:
        ...
    assert secret not in b"".join(wire.sent())
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY

_PIECE = 2**16


@dataclass(slots=True)
class Passage:
    """One connection, as far as it got.

    Args:
        site: Name in the certificate that was shown; "" without one.
        certificate: That certificate, DER.
        sent: All bytes from the site.
        received: All bytes to it.
    """

    site: str
    certificate: bytes
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class TappedWire:
    """The passages of a wire.

    Args:
        port: Its own port on loopback.
        target: That of the gateway.
        certificates: The authority's folder with the server's identity.
        sites: Folders with the sites' keys, which may come later, by name.
    """

    def __init__(
        self, port: int, target: int, certificates: Path, sites: Mapping[str, Path]
    ) -> None:
        self.port, self._target = port, target
        self._certificates, self._sites = certificates, sites
        self.passages: list[Passage] = []

    def sent(self, site: str | None = None) -> list[bytes]:
        """What left the sites, or one of them: each connection's bytes with its certificate."""
        return [
            passage.certificate + b"\n" + bytes(passage.sent)
            for passage in self.passages
            if site is None or passage.site == site
        ]

    @property
    def server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own = self._certificates / "server"
        context.load_cert_chain(own / CERTIFICATE, own / KEY)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self._certificates / AUTHORITY)
        return context

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection to its end."""
        near = writer.get_extra_info("ssl_object")
        shown = near.getpeercert(binary_form=True) or b""
        subject = dict(pair for (pair,) in (near.getpeercert() or {}).get("subject", ()))
        passage = Passage(site=subject.get("commonName", ""), certificate=shown)
        self.passages.append(passage)
        context = ssl.create_default_context(cafile=self._certificates / AUTHORITY)
        if passage.site:
            folder = self._sites[passage.site]
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self._target, ssl=context, server_hostname="localhost"
            )
            ways = [
                asyncio.create_task(_pump(reader, far_writer, passage.sent)),
                asyncio.create_task(_pump(far_reader, writer, passage.received)),
            ]
            try:
                # An HTTP connection is over as soon as one end leaves it.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                far_writer.close()
        writer.close()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bytearray
) -> None:
    with suppress(OSError):
        while piece := await source.read(_PIECE):
            record += piece
            sink.write(piece)
            await sink.drain()


@contextmanager
def tapped(
    port: int, target: int, certificates: Path, sites: Mapping[str, Path]
) -> Iterator[TappedWire]:
    """A wire from ``port`` to the gateway at ``target`` until the block ends."""
    wire, ready = TappedWire(port, target, certificates, sites), threading.Event()
    end = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(
            wire.carry, "127.0.0.1", port, ssl=wire.server_tls, backlog=128
        ):
            ready.set()
            await end.wait()
        carriers = asyncio.all_tasks() - {asyncio.current_task()}
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60.0), "the wire is not up"
        yield wire
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()
