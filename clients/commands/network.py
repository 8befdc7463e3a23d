"""Commands for the site's network: get one from the server, make it again, export it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, err, out, say
from f2l_fed.core.command_line import interruption_told
from f2l_fed.core.private_files import exported_files
from f2l_fed.core.wording import number_of
from f2l_fed.errors import F2LError, PolicyRefusal, UsageError, visible

if TYPE_CHECKING:
    from clients.site.model_store import Model
    from clients.site.site import Site
    from clients.training.fine_tuning import FineTuned


@interruption_told("the site keeps the network that it had")
def generate(
    site_file: SiteFile,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Take this many gradient steps; by default the server's."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Start from the latest start, without the server.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Get a network generated for the site's examples, and fine-tune it here.

    It is made from the release that `release fetch` has brought, where that is current; else the
    server makes it.
    """
    from clients.onboarding.network_requests import ServerUnavailable
    from clients.site.site import open_site
    from f2l_fed.wire.refusals import reason_of, told

    site = open_site(site_file)
    try:
        made = None if offline else _from_release(site, steps) or _from_server(site, steps)
    except PolicyRefusal as refusal:
        raise F2LError(
            "the site itself refuses what the server asks for it",
            where=str(site_file),
            got=told(refusal.what),
            remedy=f"{reason_of(refusal.what).remedy} --offline asks nothing of the server.",
        ) from refusal
    except ServerUnavailable as error:
        made = _from_kept_start(site, steps, error)
        _tell(f"{error} The network is made from the latest start.")
    model, network = made or _from_kept_start(site, steps)
    facts = model.facts
    if as_json:
        shown = {"model": asdict(facts), "loss_before": network.before[0], "loss": network.after[0]}
        print(json.dumps(shown, indent=1))
        return
    table = Table("", "loss", "accuracy", box=None)
    for name, (loss, accuracy) in (("before", network.before), ("after", network.after)):
        table.add_row(name, f"{loss:.4f}", f"{accuracy:.3f}")
    say(f"{facts.target} from {facts.chosen} of {facts.origin}")
    say(
        f"{number_of(facts.steps, 'step')} on {number_of(len(site.train.y), 'example')}, "
        f"measured on {len(site.validation.y)}"
    )
    out.print(table)
    say(f"Next: f2l-site model export {site_file} OUT")


def _from_release(site: Site, steps: int | None) -> tuple[Model, FineTuned] | None:
    """A network from the release that was fetched; None where there is none that can be used."""
    from clients.onboarding.network_requests import ServerUnavailable
    from clients.onboarding.release_requests import why_not_current
    from clients.site.model_store import save_model
    from clients.site.release_store import kept_release
    from clients.site.sent_log import utc_now
    from clients.training.local_network import network_from_release
    from f2l_fed.errors import DataError, LayoutMismatch, ReleaseError
    from f2l_fed.generator.release_file import ReleaseFile

    kept = kept_release(site.state)
    if kept is None or not site.config.policy.release_to_sites:
        return None
    try:
        release = ReleaseFile.read(kept.checked())
        reason = why_not_current(site, kept, now=utc_now())
    except ServerUnavailable as error:
        _tell(f"{error} Whether release {kept.id} is still current is not known.")
        reason = ""
    except (DataError, ReleaseError) as error:
        _tell(f"{error} The server is asked.")
        return None
    if reason:
        _tell(f"The fetched release is not used: {reason}. The server is asked.")
        return None
    try:
        model, start, network = network_from_release(site, release, steps=steps)
    except (ReleaseError, LayoutMismatch) as error:
        _tell(f"{error} The server is asked.")
        return None
    save_model(site.state, model, start)
    return model, network


def _tell(text: str) -> None:
    err.print(visible(text), highlight=False, markup=False, soft_wrap=True)


def _from_server(site: Site, steps: int | None) -> tuple[Model, FineTuned]:
    """A network that the server has generated, which is kept with its start."""
    from clients.onboarding.network_requests import NetworkRequests
    from clients.site.model_store import save_model
    from clients.site.sent_log import utc_now
    from clients.training.requested_network import request_network

    server = NetworkRequests(site, now=utc_now())
    model, start, network = request_network(site, server, steps=steps)
    save_model(site.state, model, start)
    return model, network


def _from_kept_start(
    site: Site, steps: int | None, unavailable: F2LError | None = None
) -> tuple[Model, FineTuned]:
    """A network from the start that is kept, which stays; raises where there is none."""
    from clients.site.model_store import load_start, save_model
    from clients.site.sent_log import utc_now
    from clients.training.fine_tuning import fine_tune_again

    start = load_start(site.state)
    if start is None:
        why = "" if unavailable is None else f", and {unavailable.what}"
        raise F2LError(
            f"no start has arrived yet{why}",
            where=str(site.file),
            remedy=f"Take part in a round first: f2l-site run {site.file}",
        )
    model, network = fine_tune_again(site, start, utc_now(), steps=steps)
    save_model(site.state, model)
    return model, network


def export(
    site_file: SiteFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
) -> None:
    """Write the network as safetensors with its facts, and as a program for torch.export.load."""
    from clients.site.exported_program import export_model
    from clients.site.model_store import load_model
    from clients.site.site_features import backbone_of
    from clients.site.site_folder import SiteFolder

    folder = SiteFolder.read(site_file)
    model = load_model(folder.state)
    if model is None:
        raise UsageError(
            "this site has no network yet",
            where=str(site_file),
            remedy=f"Get one: f2l-site generate {site_file}",
        )
    backbone = backbone_of(folder, model.facts.frozen)
    with exported_files():
        export_model(model, out, backbone)
    say(f"{model.facts.target} of {model.facts.origin} is in {out}")


def features(site_file: SiteFile) -> None:
    """Make the backbone's features of the site's examples, which tasks then find."""
    from clients.site.site import open_site
    from clients.site.site_features import installed_backbone, on_features

    site = open_site(site_file)
    backbone = installed_backbone(site)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("features", total=None)
        on_features(
            site,
            backbone.part,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    count = len(site.train.y) + len(site.validation.y)
    made, of = number_of(backbone.part.features, "feature"), number_of(count, "example")
    say(f"{made} of {of} in {site.state}")
    say(f"backbone {backbone.part.digest}")
