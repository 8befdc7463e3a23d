"""f2l-admin explain: the attribution of a generated network, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from f2l_fed.core.terminal import console
from f2l_fed.core.wording import number_of
from f2l_fed.errors import ReleaseError

if TYPE_CHECKING:
    from f2l_fed.explain.explanation import SiteShare
    from server.generator.explanation import FineTuning, SiteExplanation

_SHOWN = 10


def explain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The federation's folder.")],
    site: Annotated[
        str, typer.Option(help="Explain the network of this site; the release was made from it.")
    ],
    release: Annotated[
        str, typer.Option(help="Explain this release instead of the promoted one.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all sites.")] = False,
) -> None:
    """Show the sites' shares in a generated network, and its distance to the nearest records.

    The network is the one that the site would be given if it were new: the prediction from its
    probe without its own records.
    """
    from server.federation.folder import Federation
    from server.generator.explanation import explain_site

    federation = Federation.open(folder)
    if not federation.releases.ids():
        raise ReleaseError(
            "there is no release yet", where=str(folder), remedy="Run a round first."
        )
    explained = federation.releases.read(release) if release else federation.releases.measured()
    found = explain_site(federation, explained, site)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    printer = console()
    for part in _parts(found):
        printer.print(part)


def _parts(found: SiteExplanation) -> Iterator[RenderableType]:
    origin, releases = found.origin, found.learned_in
    learned = releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}"
    yield Text(f"Release {found.release} for {found.site} as if it were new.")
    yield Text(
        f"Its probe goes {origin.probe:.2f} from the anchor. What the prior has learned, in "
        f"{learned}, goes {origin.learned:.2f} on.\n"
    )
    yield Text("Share of the sites in what the prior adds:")
    yield _shares(origin.shares, origin.remainder)
    yield Text("\nDistance to the nearest record of another site, 0 for a copy:")
    yield _table(
        ("network", "distance", "nearest", "percentile"),
        [
            (name, f"{near.distance:.2f}", near.site, f"{near.percentile:.0f}")
            for name, near in origin.nearest.items()
        ],
    )
    yield Text("The percentile is among the same distances of the sites' own records.\n")
    yield from _changes(found.fine_tuning)


def _shares(shares: tuple[SiteShare, ...], remainder: float) -> Table:
    rows = [
        (one.site, _percent(one.share), f"{one.probe_distance:.2f}", f"{one.distance:.2f}")
        for one in shares[:_SHOWN]
    ]
    if rest := shares[_SHOWN:]:
        others = number_of(len(rest), "other")
        rows.append((others, _percent(sum(one.share for one in rest)), "", ""))
    rows.append(("remainder", _percent(remainder), "", ""))
    return _table(("site", "share in %", "probe's distance", "record's distance"), rows)


def _changes(fine_tuning: FineTuning | None) -> Iterator[RenderableType]:
    if fine_tuning is None:
        yield Text("What fine-tuning changed is not known: heads are solved, or the start is gone.")
        return
    start = (
        f"the network that {fine_tuning.release} expected" if fine_tuning.release else "the anchor"
    )
    yield Text(f"Change of the weights from {start} to the record of round {fine_tuning.round}:")
    yield _table(
        ("tensor", "change in %"),
        [
            (name, "from 0" if change is None else f"{100 * change:.1f}")
            for name, change in fine_tuning.changes.items()
        ],
    )
    if not fine_tuning.started_there:
        yield Text("The site chose another start, so this is not its fine-tuning alone.")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    for heading in headings:
        justify: Literal["left", "right"] = "right" if table.columns else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"
