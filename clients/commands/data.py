"""Commands around a site's data: see them as the network does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, out, plain, say
from f2l_fed.errors import F2LError, PolicyRefusal, UsageError

data = typer.Typer(
    help="See the site's data as they reach the network.",
    no_args_is_help=True,
)


@data.command("preview")
def show_preview(site_file: SiteFile, as_json: AsJson = False) -> None:
    """Show ten examples, the balance of classes, the split, and what was converted."""
    from clients.site.preview import example_text, picture_text, preview
    from clients.site.site_folder import SiteFolder

    shown = preview(SiteFolder.read(site_file))
    if as_json:
        examples = [
            {
                "place": example.place,
                "label": example.label,
                **({"text": example.text} if example.text else {"x": example.x.tolist()}),
            }
            for example in shown.examples
        ]
        print(json.dumps({**asdict(shown), "examples": examples}, indent=1))
        return
    blocks = "utf" in (sys.stdout.encoding or "").lower()
    shape = "x".join(map(str, shown.input_shape))
    parts = ", ".join(f"{count} {name}" for name, count in shown.parts.items())
    say(f"site {shown.site}: inputs of shape {shape}; {parts}")
    table = Table("label", *shown.parts, box=None)
    for label, counts in shown.per_class.items():
        table.add_row(plain(label), *(str(counts[name]) for name in shown.parts))
    out.print(table)
    for example in shown.examples:
        say(f"{example.place}: {example.label!r}")
        if len(shown.input_shape) == 3:
            out.print(
                picture_text(example.x, blocks=blocks),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        else:
            say(f"  {example_text(example, shown.features)}")
    for remark in shown.remarks:
        say(f"remark: {remark}")


@data.command("scales")
def agree_on_scales(site_file: SiteFile) -> None:
    """Tell mean and spread of each column, and get the scales that all sites have agreed on.

    Nothing is told where they are agreed already, or unless [policy] answers names "scales".
    """
    from clients.onboarding.scale_requests import take_scales, tell_scales
    from clients.site.sent_log import utc_now
    from clients.site.site_folder import SiteFolder
    from f2l_fed.data.readers.config import AGREED
    from f2l_fed.wire.refusals import reason_of

    site, now = SiteFolder.read(site_file), utc_now()
    scaling = take_scales(site, now=now)
    if not scaling.agreed and not scaling.sites:
        raise UsageError(
            "the sites of this federation do not agree on scales",
            where=site.server.address,
            remedy='Each fits its own: scale = "standard" under [data].',
        )
    if not scaling.agreed:
        try:
            scaling, told = tell_scales(site, scaling, now=now)
        except PolicyRefusal as refusal:
            reason = reason_of(refusal.what)
            raise F2LError(
                f"nothing was sent: {reason.text}", where=str(site_file), remedy=reason.remedy
            ) from refusal
        if not scaling.agreed:
            say(f"this site's scales are told, those of {told} of {scaling.sites} sites so far")
            say("the site takes the agreed ones by itself before its first round")
    if scaling.agreed:
        for name, (mean, spread) in scaling.agreed.items():
            say(f"{name}: mean {mean:.6g}, spread {spread:.6g}")
        say("these are the scales of all sites; they are kept in the state folder")
    if site.config.data.scale != AGREED:
        say('Next: write scale = "agreed" under [data] in site.toml')
