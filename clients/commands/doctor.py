"""f2l-site doctor: one page about the site, its connection and this machine for a support mail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clients.commands.console import SiteFile
from f2l_fed.errors import F2LError

if TYPE_CHECKING:
    from clients.site.site_folder import SiteFolder
    from f2l_fed.core.support_page import Section

_LAST_REFUSALS = 3


def doctor(site_file: SiteFile) -> None:
    """Print one page for a support mail, without secrets and data; end with 1 if it has a problem.

    The examples are not read: f2l-site check tells about them.
    """
    from clients.site.site_folder import SiteFolder
    from f2l_fed.core.machine_facts import proxy_section, room_section, version_section
    from f2l_fed.core.support_page import Section, page_text

    now, problems, to = datetime.now(UTC), list[str](), ("", 0)
    places = {"site": site_file.parent}
    sections: list[Section] = []
    try:
        site = SiteFolder.read(site_file)
        places["state"] = site.state
        to = site.server.host_and_port
        for part in (_site, _server, _files, _daemon):
            try:
                sections += part(site, now, problems)
            except F2LError as error:
                problems.append(str(error))
    except F2LError as error:
        problems.append(str(error))
    sections += [room_section(places), proxy_section(*to), version_section()]
    found = Section("problems", tuple(("", problem) for problem in dict.fromkeys(problems)))
    print(page_text(f"f2l-site doctor, {now:%Y-%m-%d %H:%M} UTC", [found, *sections]))
    if problems:
        raise typer.Exit(1)


def _site(site: SiteFolder, now: datetime, problems: list[str]) -> Iterator[Section]:  # noqa: ARG001
    from clients.site.model_facts import load_facts
    from clients.site.sent_log import REFUSAL, budget_text
    from clients.site.site_folder import state_problem
    from f2l_fed.core.support_page import Section
    from f2l_fed.wire.refusals import told

    if problem := state_problem(site.state):
        problems.append(problem)
    entries, model = site.sent.entries(), load_facts(site.state)
    rows = [
        ("name", site.config.name),
        ("last sent", f"{entries[-1]['kind']}, {entries[-1]['time']}" if entries else "nothing"),
        ("network", f"{model.origin}, {model.time}" if model else "none yet"),
    ]
    if site.budget is not None:
        rows.append(("privacy budget", budget_text(site.budget.spent())))
    refusals = [entry for entry in entries if entry["kind"] == REFUSAL][-_LAST_REFUSALS:]
    rows += [
        ("refused", f"{told(str(one['fields'].get('code')))}, {one['time']}") for one in refusals
    ]
    yield Section("site", tuple(rows))


def _server(site: SiteFolder, now: datetime, problems: list[str]) -> Iterator[Section]:
    from clients.onboarding.server_connection import connection_problems, seconds_ahead
    from f2l_fed.core.machine_facts import clock_section, way_to
    from f2l_fed.core.support_page import Section

    server = site.server
    found = connection_problems(site, connect=True, now=now)
    problems += found
    yield Section(
        "server",
        (
            ("address", server.address or "none"),
            ("way", way_to(*server.host_and_port) if server.address else "none"),
            ("connection", "has a problem" if found else "works"),
        ),
    )
    yield clock_section(now, seconds_ahead(site, datetime.now(UTC)) if server.address else None)


def _files(site: SiteFolder, now: datetime, problems: list[str]) -> Iterator[Section]:  # noqa: ARG001
    from clients.onboarding.keys import read_certificate
    from f2l_fed.core.machine_facts import days_left
    from f2l_fed.core.support_page import Section

    named = {"site": site.server.certificate, "authority": site.server.root_certificates}
    rows = [
        (name, days_left(read_certificate(site.path / file).not_valid_after_utc, now))
        for name, file in named.items()
        if file
    ]
    yield Section("certificates", tuple(rows))


def _daemon(site: SiteFolder, now: datetime, problems: list[str]) -> Iterator[Section]:  # noqa: ARG001
    from clients.daemon.status import LOG, read_status
    from f2l_fed.core.support_page import Section, recent_errors

    status = read_status(site.state)
    rows = [("state", "has never run")]
    if status is not None:
        rows = [
            ("state", f"{status.state} since {status.since}"),
            ("restarts", str(status.restarts)),
            ("last end", status.last_end or "none"),
        ]
    yield Section("daemon", tuple(rows))
    lines = recent_errors(site.state / LOG)
    yield Section(f"last errors in {Path(LOG)}", tuple(("", line) for line in lines))
