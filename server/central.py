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
import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.errors import ConfigError
from f2l_fed.files import write_atomically
from server import children
from server.children import Child, keep_running
from server.dashboard.app import serve_dashboard
from server.enrolment import serve_enrolment
from server.identity import AUTHORITY, CERTIFICATE, KEY
from server.link import SECRET_FILE
from server.lock import locked
from server.membership import Membership
from server.runs import Runs
from server.service import serve
from server.settings import ServerSettings, refresh, split_address
from server.superlink import SuperLink

_READY_S = 90.0
_BIN = Path(sys.executable).parent

_Told = tuple[Callable[[], Awaitable[None]], Callable[[], None]]
"""What is called when a child is ready, and when it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
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
async def central(root: Path) -> AsyncIterator[Places]:
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
        await asyncio.to_thread(children.end_strays, mark)
        try:
            async with _all(root, settings, flower) as places:
                yield places
        finally:
            # Flower detaches its tasks from the SuperLink; they are found by their environment.
            await asyncio.to_thread(children.end_strays, mark)


@asynccontextmanager
async def _all(root: Path, settings: ServerSettings, flower: Path) -> AsyncIterator[Places]:
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
    runs = Runs(root, lambda: up[0] if up else None)
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
        places = Places(
            sites=settings.listen if settings.front == "built-in" else "",
            control=f"{host}:{control}",
            dashboard=page,
            superlink=link.port,
            enrolment=enrolment,
        )
        yield places


def _superlink(root: Path, flower: Path, link: SuperLink, told: _Told) -> Child:
    own = root / "certificates" / "server"
    command = [sys.executable, "-m", "server.link", "--host", "127.0.0.1", "--port", str(link.port)]
    command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    command += ["--ssl-ca-certfile", str(own / AUTHORITY)]
    command += ["--ssl-certfile", str(own / CERTIFICATE), "--ssl-keyfile", str(own / KEY)]
    environment = {**_environment(flower), SECRET_FILE: str(flower / "secret")}
    return Child(
        name="superlink",
        command=command,
        environment=environment,
        folder=flower,
        ready=told[0],
        gone=told[1],
    )


def _front(
    root: Path,
    settings: ServerSettings,
    flower: Path,
    behind: tuple[int, int],
    told: _Told,
) -> Child:
    values = {
        "root": str(root),
        "listen": split_address(settings.listen, "listen"),
        "superlink": behind[0],
        "enrolment": behind[1],
        "largest_body_bytes": settings.largest_body_bytes,
        "connections": settings.connections,
        "connections_per_host": settings.connections_per_host,
    }
    write_atomically(flower / "front.json", json.dumps(values, indent=1) + "\n")
    return Child(
        name="front",
        command=[sys.executable, "-m", "server.front", str(flower / "front.json")],
        environment=_environment(flower),
        folder=flower,
        ready=told[0],
        gone=told[1],
    )


def _environment(flower: Path) -> dict[str, str]:
    """What children are given; the commands that Flower starts are the ones written here."""
    commands = {
        "flower-superexec": [sys.executable, "-m", "f2l_fed.superexec"],
        "flwr-serverapp": [sys.executable, str(_BIN / "flwr-serverapp")],
    }
    (flower / "bin").mkdir(exist_ok=True)
    for name, command in commands.items():
        text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
        write_atomically(flower / "bin" / name, text, mode=0o700)
    return {
        **os.environ,
        "FLWR_HOME": str(flower),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{flower / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


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
