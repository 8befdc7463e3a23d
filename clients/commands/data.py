"""Commands around a site's data: see them as the network does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, out, plain, say

data = typer.Typer(
    help="See the site's data as they reach the network.",
    no_args_is_help=True,
)


@data.command("preview")
def show_preview(site_file: SiteFile, as_json: AsJson = False) -> None:
    """Show ten examples, the balance of classes, the split, and what was converted."""
    from clients.site.preview import example_text, picture_text, preview
    from clients.site.site import SiteFolder

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
