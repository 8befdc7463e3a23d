"""The whole of a central service in one process that looks after all others.

::

    SuperLink     Flower's server, on loopback, a child that is started again when it ends
    front         the TLS port for sites, a child likewise
    enrolment     registration and renewal of sites, on loopback behind the front
    control       gRPC with mutual TLS, for f2l-admin
    dashboard     a page, on loopback

Ray is started by the app of a round, or is the cluster that ``[ray] address`` names.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.core.addresses import split_address
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import AUTHORITY
from server import processes
from server.control.service import serve
from server.dashboard.app import serve_dashboard
from server.federation.server_settings import ServerSettings
from server.federation.settings import refresh
from server.membership.enrolment_api import serve_enrolment
from server.membership.membership import Membership
from server.processes import keep_running
from server.scheduling.run_scheduler import RunScheduler
from server.superlink.client import SuperLink
from server.supervision.child_commands import _front, _superlink

_READY_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralAddresses:
    """Where a running service can be found.

    Args:
        sites: Address of the front; "" where it is external.
        control: Address of the control service.
        dashboard: Port of the dashboard on loopback.
        superlink: Port of the SuperLink on loopback.
        enrolment: Port of the enrolment service on loopback.
    """

    sites: str
    control: str
    dashboard: int
    superlink: int
    enrolment: int


@asynccontextmanager
async def central(root: Path) -> AsyncIterator[CentralAddresses]:
    """Runs everything until the block ends, and ends all that it started.

    Args:
        root: The federation's folder.

    Raises:
        ConfigError: If the settings can't stand or a port is taken.
        UsageError: If a server runs for this folder already.
    """
    root = root.absolute()
    _, settings = refresh(root)
    flower = root / "flower"
    flower.mkdir(mode=0o700, exist_ok=True)
    mark = f"FLWR_HOME={flower}"
    told = "a server runs for this federation already"
    with locked(flower / "server.lock", wait=False, what=told):
        await asyncio.to_thread(processes.end_strays, mark)
        try:
            async with _all(root, settings, flower) as places:
                yield places
        finally:
            # Flower detaches its tasks from the SuperLink; they are found by their environment.
            await asyncio.to_thread(processes.end_strays, mark)


@asynccontextmanager
async def _all(
    root: Path, settings: ServerSettings, flower: Path
) -> AsyncIterator[CentralAddresses]:
    certificates = root / "certificates"
    _require_free(settings)
    secret = secrets.token_urlsafe(32)
    write_atomically(flower / "secret", secret + "\n", mode=0o600)
    up: list[SuperLink] = []
    link = SuperLink(
        port=settings.superlink or _free_port(),
        authority=(certificates / AUTHORITY).read_bytes(),
        secret=secret,
    )
    membership = Membership(root, settings, lambda: up[0] if up else None)
    runs = RunScheduler(root, lambda: up[0] if up else None)
    first = asyncio.Event()
    parts = {"superlink": False}
    if settings.front == "built-in":
        parts["front"] = False

    async def link_ready() -> None:
        await _until_healthy(link)
        up.append(link)
        # It has forgotten everything: keys, and the run that was under way.
        await asyncio.to_thread(membership.tell_superlink)
        await runs.take_up()
        parts["superlink"] = True
        first.set()

    def link_gone() -> None:
        up.clear()
        parts["superlink"] = False

    async def front_ready() -> None:
        await _until_open(*split_address(settings.listen, "listen"), flower / "front.log")
        parts["front"] = True

    def front_gone() -> None:
        parts["front"] = False

    async with AsyncExitStack() as stack:
        enrolment = await stack.enter_async_context(serve_enrolment(membership, settings.enrolment))
        tasks = [_superlink(root, flower, link, (link_ready, link_gone))]
        if settings.front == "built-in":
            tasks.append(
                _front(root, settings, flower, (link.port, enrolment), (front_ready, front_gone))
            )
        running = [asyncio.create_task(keep_running(child)) for child in tasks[:1]]
        stack.push_async_callback(_cancel, running)
        await _first_start(first, running)
        running += [asyncio.create_task(keep_running(child)) for child in tasks[1:]]
        running.append(asyncio.create_task(runs.follow()))
        host, port = split_address(settings.control, "control")
        control = await stack.enter_async_context(
            serve(root, certificates, host, port, membership=membership, runs=runs, parts=parts)
        )
        page = await stack.enter_async_context(serve_dashboard(root, settings.dashboard))
        if settings.front == "built-in":
            await _until_open(*split_address(settings.listen, "listen"), flower / "front.log")
        places = CentralAddresses(
            sites=settings.listen if settings.front == "built-in" else "",
            control=f"{host}:{control}",
            dashboard=page,
            superlink=link.port,
            enrolment=enrolment,
        )
        yield places


async def _until_healthy(link: SuperLink) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _READY_S
    while not await asyncio.to_thread(link.healthy):
        if loop.time() > end:
            raise ConfigError(
                "the SuperLink does not answer",
                where=f"127.0.0.1:{link.port}",
                expected=f"an answer within {_READY_S:g} s",
                remedy="Its log is flower/superlink.log.",
            )
        await asyncio.sleep(0.3)


async def _first_start(first: asyncio.Event, running: list[asyncio.Task[None]]) -> None:
    """Waits for the SuperLink; whatever ended its supervision is raised here."""
    waiting = asyncio.create_task(first.wait())
    await asyncio.wait({waiting, *running}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in running:
        if task.done():
            task.result()


async def _until_open(host: str, port: int, log: Path) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection(host if host != "0.0.0.0" else None, port)
        except OSError as error:
            if loop.time() > end:
                raise ConfigError(
                    "the front does not listen",
                    where=f"{host}:{port}",
                    got=error.strerror or str(error),
                    remedy=f"Its log is {log}.",
                ) from error
            await asyncio.sleep(0.2)
        else:
            writer.close()
            return


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _require_free(settings: ServerSettings) -> None:
    """Raises ConfigError, naming the key, if something else listens where we would."""
    wanted = {"control": settings.control, "dashboard": f"127.0.0.1:{settings.dashboard}"}
    wanted["superlink"] = f"127.0.0.1:{settings.superlink}"
    wanted["enrolment"] = f"127.0.0.1:{settings.enrolment}"
    if settings.front == "built-in":
        wanted["listen"] = settings.listen
    for key, address in wanted.items():
        host, port = split_address(address, key)
        try:
            if port:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                socket.create_server((host, port), family=family).close()
        except OSError as error:
            raise ConfigError(
                "this address can't be listened on",
                where=f"[server] {key}",
                got=f"{address}: {os.strerror(error.errno) if error.errno else error}",
                remedy="End what listens there, or choose another in federation.toml.",
            ) from error


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
