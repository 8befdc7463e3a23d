"""What a server is doing about rounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is being done.

    Args:
        by: Who asked for it.
        sites: Sites to wait for before a round.
        remaining: Rounds that are to be started after the present run.
        run: Number of the present run; 0 for none.
        reason: Why the last run ended other than well; "" otherwise.
    """

    by: str = ""
    sites: int = 0
    remaining: int = 0
    run: int = 0
    reason: str = ""
