"""f2l-admin doctor: one page about server, connection and this machine for a support mail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import ConfigError, F2LError
from server.commands.connection import ConnectionOptions, connection_options

if TYPE_CHECKING:
    from f2l_fed.core.support_page import Section
    from server.control.client import Connection

_LOGS = ("superlink.log", "gateway.log")
_LAST_ROUNDS = 3


def doctor(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Option(help="Add what the federation's folder tells, on the server's machine."),
    ] = None,
) -> None:
    """Print one page for a support mail, without secrets; end with 1 if it has a problem."""
    from f2l_fed.core.addresses import split_address
    from f2l_fed.core.machine_facts import proxy_section, room_section, version_section
    from f2l_fed.core.support_page import Section, page_text

    to, now, problems = connection_options(context), datetime.now(UTC), list[str]()
    sections = list(_server(to, now, problems))
    try:
        reached = split_address(to.server, "--server")
    except ConfigError as error:
        problems.append(str(error))
        reached = "", 0
    if folder is not None:
        sections += _folder(folder, now, problems)
    places = {"here": Path.cwd()} if folder is None else {"federation": folder}
    sections += [room_section(places), proxy_section(*reached), version_section()]
    found = Section("problems", tuple(("", problem) for problem in dict.fromkeys(problems)))
    print(page_text(f"f2l-admin doctor, {now:%Y-%m-%d %H:%M} UTC", [found, *sections]))
    if problems:
        raise typer.Exit(1)


def _server(to: ConnectionOptions, now: datetime, problems: list[str]) -> Iterator[Section]:
    """The server's state and both clocks, and the certificates of this connection."""
    from f2l_fed.core.machine_facts import clock_section
    from f2l_fed.core.support_page import Section
    from server.control.client import connect

    async def ask() -> tuple[list[tuple[str, str]], float | None]:
        async with connect(to.server, to.certificates, to.name) as connection:
            return await _state(connection, problems)

    rows, ahead_s = [("address", to.server)], None
    try:
        answered, ahead_s = asyncio.run(ask())
        rows += answered
    except F2LError as error:
        problems.append(str(error))
    yield Section("server", tuple(rows))
    yield Section("certificates", tuple(_certificates(to, now)))
    yield clock_section(now, ahead_s)


async def _state(to: Connection, problems: list[str]) -> tuple[list[tuple[str, str]], float | None]:
    from server.control import client

    health, parts = await client.health(to), await client.parts(to)
    problems += [f"{part} is down" for part, works in parts.items() if not works]
    problems += health.problems
    rows = [
        ("version", health.version),
        ("running since", f"{health.started:%Y-%m-%d %H:%M} UTC"),
        ("parts", ", ".join(f"{p} {'works' if w else 'is down'}" for p, w in parts.items())),
        ("release", health.release or "none yet"),
    ]
    sites = await client.list_sites(to)
    registered = [site for site in sites if site.state == "active"]
    online = sum(site.online for site in registered)
    rows.append(("sites", f"{len(registered)} registered, {online} online"))
    try:
        run = await client.show_run(to)
        rows.append(("run", f"{run.run} is under way" if run.run else "none is under way"))
        if run.reason:
            rows.append(("the last run ended", run.reason))
    except client.ControlError as error:
        rows.append(("run", str(error)))
    failed = [state for state in await client.list_rounds(to) if state.reason]
    rows += [(f"round {state.number}", state.reason) for state in failed[-_LAST_ROUNDS:]]
    rows += [
        (f"site {site.name}", f"round {site.last_round}: {site.last_rejection}")
        for site in registered
        if site.last_rejection
    ]
    return rows, await client.seconds_ahead(to)


def _certificates(to: ConnectionOptions, now: datetime) -> Iterator[tuple[str, str]]:
    from f2l_fed.core.machine_facts import days_left
    from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE
    from server.control.reachability import server_certificate
    from server.pki.expiry import certificate_end

    identity = to.certificates / to.name
    for what, file in ((f"identity {to.name}", CERTIFICATE), ("authority", AUTHORITY)):
        end = certificate_end(identity / file)
        yield what, days_left(end, now) if end else f"{identity / file} can't be read"
    try:
        shown = server_certificate(to.server, identity)
    except (F2LError, OSError):
        shown = None
    yield "server", days_left(shown.not_valid_after_utc, now) if shown else "not shown"


def _folder(folder: Path, now: datetime, problems: list[str]) -> Iterator[Section]:
    """Ports, certificates and logs of a federation on this machine."""
    from f2l_fed.core.machine_facts import days_left
    from f2l_fed.core.support_page import Section, recent_errors
    from server.federation.folder import Federation
    from server.federation.settings import read_settings
    from server.pki.expiry import certificate_ends, expiry_warnings
    from server.supervision.readiness import is_listened_on

    try:
        Federation.open(folder)
        settings = read_settings(folder)
        addresses = {
            "sites": settings.listen if settings.gateway == "built-in" else "",
            "control": settings.control,
            "dashboard": f"127.0.0.1:{settings.dashboard}" if settings.dashboard else "",
        }
        ports = [
            (name, f"{address}, {'open' if is_listened_on(address) else 'CLOSED'}")
            for name, address in addresses.items()
            if address
        ]
        ports.insert(0, ("address for sites", settings.address))
    except F2LError as error:
        problems.append(str(error))
        ports = []
    yield Section("ports", tuple(ports))
    certificates = folder / "certificates"
    ends = certificate_ends(certificates)
    yield Section(
        "certificates of the federation",
        tuple((name, days_left(end, now)) for name, end in ends.items()),
    )
    problems += [one for one in expiry_warnings(certificates, now) if one not in problems]
    for log in _LOGS:
        lines = recent_errors(folder / "flower" / log)
        yield Section(f"last errors in {log}", tuple(("", line) for line in lines))
