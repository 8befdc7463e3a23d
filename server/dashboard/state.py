"""The view of a federation folder for dashboard and metrics, read while others write to it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from f2l_fed.errors import shown
from f2l_fed.events import current_name
from server.dashboard.site_table import SiteView, site_table
from server.rounds.state import with_quarantined

__all__ = ["FederationView", "read_view"]

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationView:
    """A federation at one moment.

    Args:
        rounds: States of the rounds, latest first.
        releases: Records of the releases, latest first.
        events: The last events, latest first.
        sites: Where each site stands.
        unreadable: Files that could not be read, and the number of such event lines.
    """

    rounds: tuple[dict[str, Any], ...]
    releases: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    sites: tuple[SiteView, ...]
    unreadable: tuple[str, ...]

    @property
    def promoted(self) -> dict[str, Any] | None:
        """The release that sites get."""
        return next((r for r in self.releases if r.get("state") == "promoted"), None)


def read_view(workdir: Path, *, last_events: int = 40) -> FederationView:
    """Reads a federation folder; missing parts are empty, damaged files are named.

    Args:
        workdir: Folder with ``events.jsonl``, ``rounds`` and ``releases``, each of them optional.
        last_events: Most events to return.
    """
    rounds, bad_rounds = _read_all(workdir, "rounds/[0-9]*.json")
    releases, bad_releases = _read_all(workdir, "releases/[0-9]*/release.json")
    events, bad_lines = _read_events(workdir / "events.jsonl")
    sites, bad_sites = site_table(workdir, rounds)
    return FederationView(
        rounds=tuple(_shown(state) for state in reversed(rounds)),
        releases=tuple(reversed(releases)),
        events=tuple(reversed(events[-last_events:])),
        sites=sites,
        unreadable=(
            *bad_rounds,
            *bad_releases,
            *bad_sites,
            *([f"events.jsonl ({bad_lines} of its last lines)"] if bad_lines else []),
        ),
    )


def _shown(state: dict[str, Any]) -> dict[str, Any]:
    """A round with its quarantined sites among the rejected ones, as earlier files have them."""
    rejected, quarantined = state.get("rejected"), state.get("quarantined")
    if not isinstance(rejected, dict) or not isinstance(quarantined, dict):
        return state
    # The file may be damaged: a reason can be anything.
    rejected, quarantined = (
        {site: shown(str(reason)) for site, reason in reasons.items()}
        for reasons in (rejected, quarantined)
    )
    return {**state, "rejected": with_quarantined(rejected, quarantined)}


def _read_all(workdir: Path, pattern: str) -> tuple[list[dict[str, Any]], list[str]]:
    records, bad = [], []
    for path in sorted(workdir.glob(pattern)):
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # Replaced or removed since it was listed.
        except (OSError, ValueError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            bad.append(str(path.relative_to(workdir)))
    return records, bad


def _read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete events at the end of the file, oldest first, and the number of bad lines."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return [], 0
    # After the last newline there is nothing, or a line that is still being written.
    complete = lines[1 if start else 0 : -1]
    events, bad = [], 0
    for line in complete:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append({**event, "event": current_name(str(event.get("event", "")))})
        elif line.strip():
            bad += 1
    return events, bad
