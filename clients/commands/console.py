"""The console of f2l-site, and the arguments that its commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from f2l_fed.core.terminal import console
from f2l_fed.errors import visible

out = console()
err = console(stderr=True)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """Prints a line without colours, line breaks or control characters."""
    out.print(visible(text), highlight=False, markup=False, soft_wrap=True)


def plain(text: str) -> str:
    """A text from outside for a table's cell, without colours or control characters."""
    return escape(visible(text))
