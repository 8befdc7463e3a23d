"""The end of a site's last task, as the site itself is told it: codes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from f2l_fed.wire.enrolment import LAST_TASK
from server.rounds.journal import Journal

_ROUNDS = 8
"""Rounds that are looked through, the latest ones."""

_ITS_OWN = ("refused", "unable")


def told_standing(root: Path, site: str) -> dict[str, Any]:
    """The keys about a site's last task in an answer to it; none where it was not asked lately.

    What the site itself has refused it knows better, and is not told.
    """
    numbers = [int(path.stem) for path in (root / "rounds").glob("[0-9]*.json")]
    for number in sorted(numbers, reverse=True)[:_ROUNDS]:
        ends = [line for line in Journal.of(root / "rounds", number).read() if line.site == site]
        if ends and ends[-1].code not in _ITS_OWN:
            last = {"round": number, "code": ends[-1].code, "finding": ends[-1].finding}
            return {LAST_TASK: last}
    return {}
