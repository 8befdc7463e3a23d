"""The supervisor of a central service: one process that runs or watches all of its parts.

::

    SuperLink     Flower's server, on loopback, a child that is started again when it ends
    gateway       the TLS port for sites, a child likewise
    enrolment     registration and renewal of sites, on a socket behind the gateway
    control       gRPC with mutual TLS, for f2l-admin
    dashboard     a page, on loopback

Ray is started by the app of a round, or is the cluster that ``[ray] address`` names.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from f2l_fed.core.addresses import split_address
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.core.private_files import private_folder
from f2l_fed.errors import TargetError
from f2l_fed.wire.enrolment import AUTHORITY
from f2l_fed.wire.reply_bound import ReplyBound, largest_built_in, reply_bound
from server import processes
from server.cluster.authentication import cluster_token
from server.control.operations import FederationServices
from server.control.service import serve
from server.dashboard.app import serve_dashboard
from server.federation.folder import Federation
from server.federation.server_settings import ServerSettings
from server.federation.settings import refresh
from server.generator.network_service import NetworkService
from server.membership.enrolment_api import serve_enrolment
from server.membership.membership import Membership
from server.membership.network_api import Networks
from server.pki.expiry import expiry_warnings
from server.processes import keep_running
from server.scheduling.run_scheduler import RunScheduler
from server.superlink.client import SuperLink
from server.supervision.child_commands import (
    ENROLMENT_SOCKET,
    gateway_process,
    superlink_process,
)
from server.supervision.readiness import (
    free_port,
    require_free_ports,
    wait_until_healthy,
    wait_until_open,
)

_LOG = logging.getLogger("f2l.server")
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralAddresses:
    """The addresses of a running service.

    Args:
        sites: Address of the gateway; "" where it is external.
        control: Address of the control service.
        dashboard: Port of the dashboard on loopback.
        superlink: Port of the SuperLink on loopback.
    """

    sites: str
    control: str
    dashboard: int
    superlink: int


@asynccontextmanager
async def central(root: Path) -> AsyncIterator[CentralAddresses]:
    """Runs a central service until the block ends, and ends all that it started.

    Args:
        root: The federation's folder.

    Raises:
        ConfigError: If the settings are invalid, a port is in use, or the token of the Ray cluster
            can't be read.
        UsageError: If a server runs for this folder already.
    """
    root = root.absolute()
    federation, settings = refresh(root)
    if federation.config.ray.address or federation.config.ray.jobs:
        # Told now, and not by the first round.
        cluster_token(federation.config.ray)
    for folder in (root, federation.zoo_place):
        if not isinstance(folder, Path) or not folder.is_dir():
            continue
        if warning := private_folder(folder):
            _LOG.warning("%s", warning)
    flower = root / "flower"
    flower.mkdir(mode=0o700, exist_ok=True)
    # No other account reaches the secret and the socket in it.
    flower.chmod(0o700)
    mark = f"FLWR_HOME={flower}"
    problem = "a server runs for this federation already"
    with locked(flower / "server.lock", wait=False, what=problem):
        await asyncio.to_thread(processes.end_strays, mark)
        try:
            require_free_ports(settings)
            async with Supervisor(root, settings).running() as addresses:
                yield addresses
        finally:
            # Flower detaches its tasks from the SuperLink; they are found by their environment.
            await asyncio.to_thread(processes.end_strays, mark)


class Supervisor:
    """The parts of one central service, and whether each works.

    Args:
        root: The federation's folder, absolute, with a folder ``flower``.
        settings: Addresses, ports and limits.
    """

    def __init__(self, root: Path, settings: ServerSettings) -> None:
        self._root, self._settings, self._flower = root, settings, root / "flower"
        secret = secrets.token_urlsafe(32)
        write_atomically(self._flower / "secret", secret + "\n", mode=0o600)
        self._superlink = SuperLink(
            port=settings.superlink or free_port(),
            authority=(root / "certificates" / AUTHORITY).read_bytes(),
            secret=secret,
        )
        self._superlink_up = False
        self._first_start = asyncio.Event()
        self._has_gateway = settings.gateway == "built-in"
        self._parts = {"superlink": False, **({"gateway": False} if self._has_gateway else {})}
        self._services = FederationServices(
            membership=Membership(root, settings, self._reachable_superlink),
            runs=RunScheduler(root, self._reachable_superlink),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CentralAddresses]:
        """Runs all parts until the block ends."""
        settings, services = self._settings, self._services
        bound, context_bound = await asyncio.to_thread(_reply_bounds, self._root)
        networks = None
        if self._has_gateway:
            networks = Networks(
                service=NetworkService(self._root), largest_bytes=context_bound.bytes
            )
        async with AsyncExitStack() as stack:
            place = self._flower / ENROLMENT_SOCKET if self._has_gateway else settings.enrolment
            await stack.enter_async_context(
                serve_enrolment(services.membership, place, networks=networks)
            )
            children = [
                superlink_process(
                    self._root,
                    self._superlink.port,
                    external=not self._has_gateway,
                    bound=bound,
                    ready=self._superlink_ready,
                    gone=self._superlink_gone,
                )
            ]
            if self._has_gateway:
                children.append(
                    gateway_process(
                        self._root,
                        settings,
                        superlink=self._superlink.port,
                        bound=bound,
                        largest_context_bytes=context_bound.bytes,
                        ready=self._gateway_ready,
                        gone=self._gateway_gone,
                    )
                )
            tasks = [asyncio.create_task(keep_running(child)) for child in children[:1]]
            stack.push_async_callback(_cancel, tasks)
            await self._wait_for_first_start(tasks)
            tasks += [asyncio.create_task(keep_running(child)) for child in children[1:]]
            tasks.append(asyncio.create_task(services.runs.follow()))
            tasks.append(asyncio.create_task(_warn_of_ends(self._root / "certificates")))
            host, port = split_address(settings.control, "control")
            control = await stack.enter_async_context(
                serve(
                    self._root,
                    self._root / "certificates",
                    host,
                    port,
                    services=services,
                    parts=self._parts,
                )
            )
            dashboard = await stack.enter_async_context(
                serve_dashboard(self._root, settings.dashboard, hosts=settings.dashboard_names)
            )
            if self._has_gateway:
                await self._wait_for_gateway()
            yield CentralAddresses(
                sites=settings.listen if self._has_gateway else "",
                control=f"{host}:{control}",
                dashboard=dashboard,
                superlink=self._superlink.port,
            )

    def _reachable_superlink(self) -> SuperLink | None:
        return self._superlink if self._superlink_up else None

    async def _superlink_ready(self) -> None:
        await wait_until_healthy(self._superlink)
        self._superlink_up = True
        # It has lost its state: the sites' keys, and the run that was under way.
        await asyncio.to_thread(self._services.membership.synchronise_superlink)
        await self._services.runs.take_up()
        self._parts["superlink"] = True
        self._first_start.set()

    def _superlink_gone(self) -> None:
        self._superlink_up = False
        self._parts["superlink"] = False

    async def _gateway_ready(self) -> None:
        await self._wait_for_gateway()
        self._parts["gateway"] = True

    def _gateway_gone(self) -> None:
        self._parts["gateway"] = False

    async def _wait_for_gateway(self) -> None:
        await wait_until_open(self._settings.listen, self._flower / "gateway.log")

    async def _wait_for_first_start(self, tasks: list[asyncio.Task[None]]) -> None:
        """Waits for the SuperLink; an error that ended its supervision is raised here."""
        waiting = asyncio.create_task(self._first_start.wait())
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in tasks:
            if task.done():
                task.result()


def _reply_bounds(root: Path) -> tuple[ReplyBound, ReplyBound]:
    """The limits of a site's reply in a round about the federation's network, and of a context."""
    federation = Federation.open(root)
    try:
        layout = federation.target.layout
    except TargetError as error:
        # Nor can a round build it; the other services work.
        _LOG.warning("%s", error)
        return largest_built_in(), largest_built_in()
    in_round = reply_bound(layout, federation.config.pairs, federation.body_layout)
    return in_round, reply_bound(layout, 1)


async def _warn_of_ends(certificates: Path) -> None:
    """Warns of certificates that end soon in the log, once a day."""
    while True:
        for warning in await asyncio.to_thread(expiry_warnings, certificates, datetime.now(UTC)):
            _LOG.warning("%s", warning)
        await asyncio.sleep(_DAY_S)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
