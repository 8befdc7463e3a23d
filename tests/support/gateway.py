"""The gateway alone for tests: its real process before the real enrolment service, no SuperLink."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clients.onboarding.enrolment import register
from clients.onboarding.kit import read_kit
from f2l_fed.wire.enrolment import FederationFacts
from server.federation.server_settings import ServerSettings
from server.membership.enrolment_api import serve_enrolment
from server.membership.membership import Membership
from server.membership.network_api import Networks
from server.pki.certificate_store import create_authority, issue
from server.pki.revocation import revoke
from tests.support.central import exchange, status_of
from tests.support.deployment import free_ports
from tests.support.waiting import PATIENCE_S, holds

ME = b"GET /v1/site/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """A gateway on loopback.

    Args:
        root: The federation's folder.
        port: Port of the gateway.
        enrolment: Port of the enrolment service.
        membership: The federation's sites.
        process: The gateway's.
    """

    root: Path
    port: int
    enrolment: int
    membership: Membership
    process: subprocess.Popen[str]

    def kit(self, name: str) -> Path:
        """A new site's kit, a file."""
        path = self.root.parent / f"{name}.kit"
        path.write_bytes(self.membership.invite(name, "admin"))
        return path

    def registered(self, name: str) -> Path:
        """The folder of a site that has registered through the gateway."""
        folder = self.root.parent / name
        register(read_kit(self.kit(name), now=datetime.now(UTC)), folder)
        return folder

    def status(
        self,
        folder: Path | None,
        request: bytes = ME,
        *,
        source: str = "127.0.0.1",
        timeout_s: float = PATIENCE_S,
    ) -> int:
        """The status that a site gets, or somebody without a certificate; 0 without an answer."""
        context = ssl.create_default_context(cafile=self.root / "certificates/ca.crt")
        if folder is not None:
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        try:
            return status_of(
                exchange(self.port, request, tls=context, source=source, timeout_s=timeout_s)
            )
        except OSError:
            return 0

    def facts(self, folder: Path) -> FederationFacts:
        """The federation's facts as a registered site gets them."""
        context = ssl.create_default_context(cafile=self.root / "certificates/ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        body = exchange(self.port, ME, tls=context).partition(b"\r\n\r\n")[2]
        return FederationFacts.from_json(json.loads(body))


def require_registered(gateway: RunningGateway, folder: Path, ask: bytes, site: str) -> None:
    """Asserts that nobody but a registered site is answered.

    Args:
        gateway: The gateway.
        folder: For another authority.
        ask: A request, with the host x.
        site: Name of a site that is registered.
    """
    assert gateway.status(None, ask) == 401
    create_authority(folder / "other")
    assert gateway.status(issue(folder / "other", "north", "site"), ask) == 0
    ghost = issue(gateway.root / "certificates", "ghost", "site")
    assert gateway.status(ghost, ask) == 401
    admin = issue(gateway.root / "certificates", "boss", "admin")
    assert gateway.status(admin, ask) == 401
    # Past the gateway, on the port for an external one, there is no such service.
    with socket.create_connection(("127.0.0.1", gateway.enrolment)) as plain:
        plain.sendall(ask.replace(b"host: x", f"host: localhost\r\nf2l-site: {site}".encode()))
        assert status_of(plain.recv(100)) == 404


@contextmanager
def gateway_running(
    root: Path, *, networks: Networks | None = None, **limits: int
) -> Iterator[RunningGateway]:
    """A federation's gateway until the block ends.

    Args:
        root: The federation's folder.
        networks: What sites may ask for, as of `serve_enrolment`.
        limits: As in `GatewaySettings`.
    """
    certificates = root / "certificates"
    create_authority(certificates)
    issue(certificates, "server", "server")
    revoke(certificates, ())
    (port,) = free_ports(1)
    membership = Membership(root, ServerSettings(address=f"localhost:{port}"))
    (root / "secret").write_text("secret")
    place = root / "enrolment"
    with _enrolment(membership, place, networks) as enrolment:
        values = {"root": str(root), "listen": ["127.0.0.1", port], "superlink": 1, **limits}
        settings = root / "gateway.json"
        settings.write_text(
            json.dumps({**values, "enrolment": str(place), "secret": str(root / "secret")})
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "server.gateway.gateway", str(settings)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on"), "the gateway has ended"
            yield RunningGateway(
                root=root,
                port=port,
                enrolment=enrolment,
                membership=membership,
                process=process,
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@contextmanager
def _enrolment(membership: Membership, place: Path, networks: Networks | None) -> Iterator[int]:
    """The enrolment service in a thread of its own; yields its port."""
    started, stop, port = threading.Event(), threading.Event(), [0]

    async def serve() -> None:
        (port[0],) = free_ports(1)
        async with (
            serve_enrolment(membership, port[0]),
            serve_enrolment(membership, place, networks=networks),
        ):
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert holds(lambda: started.is_set() or not thread.is_alive())
        assert started.is_set(), "it has not started"
        yield port[0]
    finally:
        stop.set()
        thread.join()
