"""The changes of a simulated federation in words, beside the accuracies of its sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROUPS = {"never": "never changed", "changed": "changed", "joined": "joined"}
"""Headings of the sites that are told apart in a federation that changes, by key of their mean."""

CHANGES = {
    "joined": "joined",
    "left": "left",
    "classes": "got further classes",
    "camera": "got another camera",
}
"""What a site did, by kind of change."""


def changes_after(result: Mapping[str, Any], number: int) -> str:
    """The changes after a round, in words; "" where there were none.

    Args:
        result: Content of ``result.json``.
        number: The round.

    >>> rows = [{"round": 2, "site": f"site-{n}", "what": what} for n, what in
    ...         enumerate(["joined", "joined", "left"])]
    >>> changes_after({"changes": rows}, 2), changes_after({}, 2)
    ('site-0, site-1 joined; site-2 left', '')
    """
    sites: dict[str, list[str]] = {}
    for row in result.get("changes") or ():
        if row["round"] == number:
            sites.setdefault(row["what"], []).append(row["site"])
    return "; ".join(f"{', '.join(names)} {CHANGES[what]}" for what, names in sites.items())
