"""Command for the release: the federation's compact generator, from which a site draws itself."""

from __future__ import annotations

import typer
from rich.progress import Progress

from clients.commands.console import SiteFile, err, say
from f2l_fed.core.command_line import interruption_told
from f2l_fed.errors import F2LError, PolicyRefusal

app = typer.Typer(
    help="Fetch the federation's compact generator, where sites are given it.", no_args_is_help=True
)


@app.command()
@interruption_told("what has arrived stays, and f2l-site release fetch goes on there")
def fetch(site_file: SiteFile) -> None:
    """Fetch the compact generator of the release, once; `generate` then asks for nothing more."""
    from clients.onboarding.release_requests import fetch_release
    from clients.site.sent_log import utc_now
    from clients.site.site_folder import SiteFolder
    from f2l_fed.wire.refusals import reason_of, told

    site = SiteFolder.read(site_file)
    try:
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            bar = progress.add_task("release", total=None)
            release, fetched = fetch_release(
                site,
                now=utc_now(),
                told=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    except PolicyRefusal as refusal:
        raise F2LError(
            "the site itself refuses the release",
            where=str(site_file),
            got=told(refusal.what),
            remedy=reason_of(refusal.what).remedy,
        ) from refusal
    size = release.path.stat().st_size
    say(f"release {release.id} {'is' if fetched else 'was already'} here: {size} B in {site.state}")
    say(f"Next: f2l-site generate {site_file}")
