"""Commands for the site's network: make it again, export it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, out, say
from f2l_fed.core.private_files import exported_files
from f2l_fed.errors import F2LError, UsageError


def generate(
    site_file: SiteFile,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Number of gradient steps; by default the task's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the site's network again, here, from the start of its latest task."""
    from clients.site.model_store import load_start, save_model
    from clients.site.sent_log import utc_now
    from clients.site.site import open_site
    from clients.training.fine_tuning import fine_tune_again

    site = open_site(site_file)
    start = load_start(site.state)
    if start is None:
        raise F2LError(
            "no start has arrived yet",
            where=str(site_file),
            remedy=f"Take part in a round first: f2l-site run {site_file}",
        )
    model, network = fine_tune_again(site, start, utc_now(), steps=steps)
    save_model(site.state, model)
    facts = model.facts
    if as_json:
        shown = {"model": asdict(facts), "loss_before": network.before[0], "loss": network.after[0]}
        print(json.dumps(shown, indent=1))
        return
    release = f", release {facts.release}" if facts.release else ""
    table = Table("", "loss", "accuracy", box=None)
    for name, (loss, accuracy) in (("before", network.before), ("after", network.after)):
        table.add_row(name, f"{loss:.4f}", f"{accuracy:.3f}")
    say(f"{facts.target} from {facts.chosen} of round {facts.round}{release}")
    say(
        f"{facts.steps} steps on {len(site.train.y)} examples, measured on {len(site.validation.y)}"
    )
    out.print(table)
    say(f"Next: f2l-site model export {site_file} OUT")


def export(
    site_file: SiteFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
) -> None:
    """Write the network as safetensors with its facts, and as a program for torch.export.load."""
    from clients.site.model_store import export_model, load_model
    from clients.site.site import SiteFolder

    model = load_model(SiteFolder.read(site_file).state)
    if model is None:
        raise UsageError(
            "this site has no network yet",
            where=str(site_file),
            remedy="It gets one with the first task.",
        )
    with exported_files():
        export_model(model, out)
    say(f"{model.facts.target} of round {model.facts.round} is in {out}")
