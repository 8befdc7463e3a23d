"""Commands around the daemon: run it, show its status and all that it has sent."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, err, out, plain, say
from f2l_fed.core.wording import number_of


def run(site_file: SiteFile) -> None:
    """Answer the server's tasks until stopped (SIGTERM, Ctrl-C)."""
    from clients.daemon.status import LOG
    from clients.daemon.supervisor import run as run_daemon
    from clients.site.site_folder import SiteFolder

    site = SiteFolder.read(site_file)

    def begun() -> None:
        say(f"site {site.config.name} answers {site.server.address} until Ctrl-C")
        say(f"its log is {site.state / LOG}")
        # The daemon runs all the same: a problem may pass, such as a share not mounted yet.
        for problem in _problems(site_file):
            err.print(f"problem: {problem}", highlight=False, markup=False, soft_wrap=True)

    run_daemon(site_file, begun=begun)
    say("ended: the site answers nothing until f2l-site run starts it again")


def _problems(site_file: Path) -> list[str]:
    """The problems that a check finds, in a process of its own.

    So the daemon never needs the memory that reading examples takes.
    """
    command = [sys.executable, "-m", "clients.cli", "check", "--offline", "--json", str(site_file)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        problems: list[str] = json.loads(found.stdout)["problems"]
    except ValueError:
        return []
    return problems


def status(site_file: SiteFile, as_json: AsJson = False) -> None:
    """Show the daemon, the latest message and the site's network."""
    from clients.daemon.status import read_status
    from clients.onboarding.server_connection import (
        connection_problems,
        federation_facts,
        last_task,
    )
    from clients.site.model_facts import load_facts
    from clients.site.sent_log import budget_text, latest_refusal, utc_now
    from clients.site.site_folder import SiteFolder, state_problem

    site = SiteFolder.read(site_file)
    budget = site.budget
    spent = budget.spent() if budget else None
    daemon, model, entries = read_status(site.state), load_facts(site.state), site.sent.entries()
    problem = state_problem(site.state)
    if not problem and daemon and daemon.state == "running":
        # A SuperNode that can't reach the server tries again for ever, and counts as running.
        problem = next(iter(connection_problems(site, connect=True, now=utc_now())), "")
    refusal, last = latest_refusal(entries), ""
    if not problem and site.server.certificate and daemon and daemon.state == "running":
        last = last_task(federation_facts(site, now=utc_now()))
    if as_json:
        shown = {
            "site": site.config.name,
            "daemon": asdict(daemon) if daemon else None,
            "problem": problem,
            "latest": entries[-1] if entries else None,
            "refusal": asdict(refusal) if refusal else None,
            "last_task": last,
            "budget": spent,
            "model": asdict(model) if model else None,
        }
        print(json.dumps(shown, indent=1))
        return
    table = Table(show_header=False, box=None)
    table.add_row("site", site.config.name)
    if daemon is None:
        table.add_row("daemon", "has never run")
    else:
        table.add_row("daemon", f"{daemon.state} since {daemon.since}, for {daemon.server}")
        table.add_row("restarts", str(daemon.restarts))
        table.add_row("last end", plain(daemon.last_end or "none"))
        if daemon.problem:
            table.add_row("problem", plain(daemon.problem))
    if problem:
        table.add_row("problem", plain(problem))
    latest = f"{entries[-1]['kind']}, {entries[-1]['time']}" if entries else "nothing yet"
    table.add_row("last sent", latest)
    if refusal:
        table.add_row("refused", plain(f"{refusal.text}. {refusal.remedy}"))
    if last:
        table.add_row("last task", plain(last))
    if spent:
        table.add_row("privacy budget", budget_text(spent))
    if model is None:
        table.add_row("network", "none yet")
    else:
        target = plain(model.target)
        table.add_row("network", f"{target}, {plain(model.origin)}, {model.time}")
        before, after = model.accuracy_before, model.accuracy
        steps = number_of(model.steps, "step")
        table.add_row("accuracy", f"{before:.3f} before, {after:.3f} after {steps}")
    out.print(table)


def sent(
    site_file: SiteFile,
    last: Annotated[int, typer.Option(min=1, help="Show this number of entries.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show all that has left this site, from the record written before anything leaves.

    The norm is the Euclidean length of each change that has left: of a probe, and of an update
    the way from the start to the fine-tuned network.
    """
    from clients.site.sent_log import budget_text, norm_texts, work_texts
    from clients.site.site_folder import SiteFolder

    entries = SiteFolder.read(site_file).sent.entries()
    total = sum(entry["bytes"] for entry in entries)
    if as_json:
        print(json.dumps({"total": {"messages": len(entries), "bytes": total}, "sent": entries}))
        return
    table = Table(
        "time (UTC)", "kind", "round", "bytes", "tensors", "norm", "budget", "numbers and code"
    )
    for entry in entries[-last:]:
        tensors = sum(map(len, entry["tensors"].values()))
        numbers = [f"{name} {value:.4g}" for name, value in entry["numbers"].items()]
        code = entry["fields"].get("code")
        table.add_row(
            entry["time"][:19],
            entry["kind"],
            str(entry["round"] or ""),
            str(entry["bytes"]),
            str(tensors or ""),
            "\n".join(norm_texts(entry)),
            budget_text(entry.get("budget")),
            "\n".join([*numbers, *work_texts(entry.get("work")), *([plain(code)] if code else [])]),
        )
    out.print(table)
    say(f"{number_of(len(entries), 'message')}, {number_of(total, 'byte')} in all")
