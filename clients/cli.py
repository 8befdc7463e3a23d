"""The command f2l-site."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from f2l_fed.errors import F2LError, UsageError

site_app = typer.Typer(
    name="f2l-site",
    help="Runs a site beside its private data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(
    help="The network that this site has now.", no_args_is_help=True, add_completion=False
)
site_app.add_typer(model_app, name="model")
_out = Console()
_err = Console(stderr=True)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


@site_app.command()
def init(
    kit: Annotated[
        Path, typer.Argument(metavar="KIT|DIR", help="The site's kit; without one, its folder.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled examples: a file or a folder of images.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="The site's folder; one of its name if left out.")
    ] = None,
    name: Annotated[str, typer.Option(help="Without a kit, the site's name.")] = "",
) -> None:
    """Registers the site with its kit, once, and writes a commented site.toml."""
    from clients.kit import read_kit
    from clients.policy import utc_now
    from clients.setup import create_site, unpack

    with_kit = kit.is_file()
    if not name and not kit.exists():
        raise UsageError("there is no such kit", where=str(kit), remedy="Check the path.")
    if with_kit == bool(name):
        raise UsageError(
            "a site has its name from its kit, or without a kit from --name",
            where=str(kit),
            expected="the file of a kit, or a folder and --name",
        )
    if with_kit:
        about = read_kit(kit, now=utc_now())
        _say(f"kit of {about.site} for {about.server}, fingerprint {about.short_fingerprint}")
    if data is None:
        if not sys.stdin.isatty():
            raise UsageError("no data named", where="--data", expected="a file or a folder")
        data = Path(typer.prompt("Labelled examples (a file or a folder)")).expanduser()
    path = unpack(kit, into, data, now=utc_now()) if with_kit else create_site(kit, name, data)
    if with_kit:
        _say("registered; the kit is used up and can be deleted")
    _out.print(f"{path} is written. Next: f2l-site check {path}", highlight=False, soft_wrap=True)


@site_app.command()
def check(
    site_file: SiteFile,
    target: Annotated[str, typer.Option(help="Also checks that this network fits.")] = "",
    classes: Annotated[int, typer.Option(help="Outputs of that network.")] = 0,
    offline: Annotated[bool, typer.Option(help="Does not connect to the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Finds what would keep the site from taking part; nothing is sent."""
    from clients.check import check as check_site

    report = check_site(site_file, target=target, classes=classes, connect=not offline)
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        shape = "x".join(map(str, report.input_shape))
        counts = ", ".join(f"{label}: {count}" for label, count in report.per_class.items())
        if report.train:
            _say(f"site {report.site}: {report.train} examples of shape {shape} to learn from")
            _say(f"({counts}), {report.validation} to measure on")
        for remark in report.remarks:
            _say(f"remark: {remark}")
        for problem in report.problems:
            _say(f"problem: {problem}")
        if not report.problems:
            _say("Nothing is wrong.")
    if report.problems:
        sys.exit(2)


@site_app.command()
def run(site_file: SiteFile) -> None:
    """Answers the server's tasks until it is stopped (SIGTERM, Ctrl-C)."""
    from clients.check import check as check_site
    from clients.daemon import LOG
    from clients.daemon import run as run_daemon
    from clients.site import read_config

    config = read_config(site_file)

    def begun() -> None:
        _say(f"site {config.name} answers {config.server.address} until Ctrl-C")
        _say(f"its log is {site_file.parent / config.state / LOG}")
        # It runs all the same: a share that is not mounted yet comes later.
        for problem in check_site(site_file, connect=False).problems:
            _err.print(f"problem: {problem}", highlight=False, markup=False, soft_wrap=True)

    run_daemon(site_file, begun=begun)
    _say("ended")


@site_app.command()
def renew(
    site_file: SiteFile,
    keep_keys: Annotated[bool, typer.Option(help="Keeps the keys.")] = False,
) -> None:
    """Gets new keys and a new certificate; the old ones count no longer. The daemon does so too."""
    from clients.enrol import renew as renew_site
    from clients.keys import certificate_of
    from clients.policy import utc_now
    from clients.site import read_config

    config, folder = read_config(site_file), site_file.parent
    renew_site(config, folder, now=utc_now(), new_keys=not keep_keys)
    end = certificate_of(folder / config.server.certificate).not_valid_after_utc
    _say(f"renewed until {end:%Y-%m-%d}; a daemon that runs starts anew with it by itself")


@site_app.command()
def status(site_file: SiteFile, as_json: AsJson = False) -> None:
    """Shows the daemon, the latest answer and the site's network."""
    from clients.check import state_problem
    from clients.daemon import read_status
    from clients.link import problems_of
    from clients.model import load_model
    from clients.policy import spent_of, utc_now
    from clients.site import budget, read_config, sent_log

    config = read_config(site_file)
    state = site_file.parent / config.state
    own = budget(config, state)
    spent = own.spent() if own else None
    daemon, model, entries = read_status(state), load_model(state), sent_log(state).entries()
    problem = state_problem(state)
    if not problem and daemon and daemon.state == "running":
        # A SuperNode that can't reach the server tries again for ever, and is running all the same.
        folder, now = site_file.parent, utc_now()
        problem = next(iter(problems_of(config.server, folder, connect=True, now=now)), "")
    if as_json:
        shown = {
            "site": config.name,
            "daemon": asdict(daemon) if daemon else None,
            "problem": problem,
            "latest": entries[-1] if entries else None,
            "budget": spent,
            "model": asdict(model.facts) if model else None,
        }
        print(json.dumps(shown, indent=1))
        return
    table = Table(show_header=False, box=None)
    table.add_row("site", config.name)
    if daemon is None:
        table.add_row("daemon", "has never run")
    else:
        table.add_row("daemon", f"{daemon.state} since {daemon.since}, for {daemon.server}")
        table.add_row("restarts", str(daemon.restarts))
        table.add_row("last end", daemon.last_end or "none")
        if daemon.problem:
            table.add_row("problem", daemon.problem)
    if problem:
        table.add_row("problem", problem)
    latest = f"{entries[-1]['kind']}, {entries[-1]['time']}" if entries else "nothing yet"
    table.add_row("last sent", latest)
    if spent:
        table.add_row("privacy budget", spent_of(spent))
    if model is None:
        table.add_row("network", "none yet")
    else:
        facts = model.facts
        table.add_row("network", f"{facts.target}, round {facts.round}, {facts.time}")
        before, after = facts.accuracy_before, facts.accuracy
        table.add_row("accuracy", f"{before:.3f} before, {after:.3f} after {facts.steps} steps")
    _out.print(table)


@site_app.command()
def sent(
    site_file: SiteFile,
    last: Annotated[int, typer.Option(min=1, help="Entries in the table.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Shows what has left this site, from the record written before anything leaves.

    The norm is the Euclidean length of each change that has left: of a probe, and of an update
    the way from the start to the fine-tuned network.
    """
    from clients.policy import norms_of, spent_of
    from clients.site import read_config, sent_log

    config = read_config(site_file)
    entries = sent_log(site_file.parent / config.state).entries()
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
            "\n".join(norms_of(entry)),
            spent_of(entry.get("budget")),
            "\n".join([*numbers, *([code] if code else [])]),
        )
    _out.print(table)
    _say(f"{len(entries)} messages, {total} bytes in all")


@site_app.command()
def generate(
    site_file: SiteFile,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Gradient steps; as many as the task said if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes the site's network anew, here, from the start that its latest task brought."""
    from clients.model import load_start, save_model
    from clients.policy import utc_now
    from clients.site import open_site
    from clients.trainer import anew

    site = open_site(site_file)
    start = load_start(site.state)
    if start is None:
        raise F2LError(
            "no start has arrived yet",
            where=str(site_file),
            remedy=f"Take part in a round first: f2l-site run {site_file}",
        )
    model, tuned = anew(site, start, utc_now(), steps=steps)
    save_model(site.state, model)
    facts = model.facts
    if as_json:
        shown = {"model": asdict(facts), "loss_before": tuned.before[0], "loss": tuned.after[0]}
        print(json.dumps(shown, indent=1))
        return
    release = f", release {facts.release}" if facts.release else ""
    table = Table("", "loss", "accuracy", box=None)
    for name, (loss, accuracy) in (("before", tuned.before), ("after", tuned.after)):
        table.add_row(name, f"{loss:.4f}", f"{accuracy:.3f}")
    _say(f"{facts.target} from {facts.chosen} of round {facts.round}{release}")
    _say(
        f"{facts.steps} steps on {len(site.train.y)} examples, measured on {len(site.validation.y)}"
    )
    _out.print(table)
    _say(f"Next: f2l-site model export {site_file} OUT")


@model_app.command("export")
def export(
    site_file: SiteFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
) -> None:
    """Writes the network as safetensors with its facts, and as a program for torch.export.load."""
    from clients.model import export_model, load_model
    from clients.site import read_config

    config = read_config(site_file)
    model = load_model(site_file.parent / config.state)
    if model is None:
        raise UsageError(
            "this site has no network yet",
            where=str(site_file),
            remedy="It gets one with the first task.",
        )
    export_model(model, out)
    _say(f"{model.facts.target} of round {model.facts.round} is in {out}")


def site() -> None:
    """Entry point of f2l-site."""
    try:
        site_app()
    except F2LError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        _err.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)


def _say(text: str) -> None:
    _out.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    site()
