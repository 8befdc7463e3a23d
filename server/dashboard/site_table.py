"""The table of sites on the dashboard: where each stands, why it was left out, and what helps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from f2l_fed.admission.verdict import REASONS
from f2l_fed.errors import shown
from f2l_fed.wire.refusals import CATALOGUE, reason_of
from server.rounds.journal import SUCCESSES, Journal, JournalEntry

LATEST_ROUNDS = 8
"""Rounds whose ends of tasks are looked through, the latest ones."""

_STATES = ("invited", "active", "removed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """A site as the dashboard shows it.

    Args:
        name: Of the site.
        state: "invited", "active" or, in a simulation, "".
        accepted: Rounds with an update of it.
        round: The latest round that it was asked in; 0 for none lately.
        end: The end of that task, such as "accepted", "refused" or "no answer"; "" for none.
        reason: Why it was left out, in words; "" where it was not.
        remedy: What the site's operator can do about that.
    """

    name: str
    state: str = ""
    accepted: int = 0
    round: int = 0
    end: str = ""
    reason: str = ""
    remedy: str = ""


_OF_SITES = ("refused", "unable", "failed")
"""Codes of tasks whose finding is the site's own code."""

_ENDS = {
    "accepted": "accepted",
    "unchanged": "nothing left to learn",
    "quarantined": "in quarantine",
    "refused": "refused",
    "unable": "refused",
    "failed": "failed",
    "silent": "no answer",
}


def site_table(
    workdir: Path, rounds: Iterable[Mapping[str, Any]]
) -> tuple[tuple[SiteView, ...], list[str]]:
    """The sites of a federation's folder: those that were left out first, each group by name.

    Args:
        workdir: The folder; others write to it meanwhile.
        rounds: States of all rounds, as they are in their files.

    Returns:
        The sites but those that were removed, and the files that could not be read.
    """
    states, bad = _registered(workdir)
    accepted: dict[str, int] = {}
    for state in rounds:
        names = state.get("accepted")
        for name in names if isinstance(names, list) else ():
            accepted[str(name)] = accepted.get(str(name), 0) + 1
    ends = _latest_ends(workdir)
    names = {*states, *accepted, *ends}
    views = [
        _view(name, states.get(name, ""), accepted.get(name, 0), *ends.get(name, (0, None)))
        for name in names
        if states.get(name) != "removed"
    ]
    return tuple(sorted(views, key=lambda view: (not view.reason, view.name))), bad


def _view(name: str, state: str, accepted: int, number: int, last: JournalEntry | None) -> SiteView:
    view = SiteView(name=shown(name), state=state, accepted=accepted, round=number)
    if last is None:
        return view
    view = replace(view, end=_ENDS.get(last.code, "rejected"))
    if last.code in SUCCESSES:
        return view
    # A code of the site's says more than how the server takes it; others are of admission.
    of_site = last.code in _OF_SITES and last.finding in CATALOGUE
    code = last.finding if of_site else last.code
    reason = reason_of(code)
    found = f": {REASONS[last.finding]}" if not of_site and last.finding in REASONS else ""
    text = f"{reason.text}{found}" if code in CATALOGUE else last.reason
    return replace(view, reason=text, remedy=reason.remedy)


def _latest_ends(workdir: Path) -> dict[str, tuple[int, JournalEntry]]:
    """The latest end of a task of each site, with its round."""
    ends: dict[str, tuple[int, JournalEntry]] = {}
    folder = workdir / "rounds"
    numbers = sorted(
        int(path.name.partition(".")[0]) for path in folder.glob("[0-9]*.answers.jsonl")
    )
    for number in numbers[-LATEST_ROUNDS:]:
        for entry in Journal.of(folder, number).read():
            if entry.site:
                ends[entry.site] = number, entry
    return ends


def _registered(workdir: Path) -> tuple[dict[str, str], list[str]]:
    """The state of each registered site, and the files that could not be read."""
    states, bad = {}, []
    for path in sorted((workdir / "registry").glob("[a-z0-9]*.json")):
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            record = None
        if isinstance(record, dict) and record.get("state") in _STATES:
            states[path.stem] = record["state"]
        else:
            bad.append(str(path.relative_to(workdir)))
    return states, bad
