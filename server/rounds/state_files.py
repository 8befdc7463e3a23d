"""The files of round states: one JSON file for each round, locked, replaced in one step."""

from __future__ import annotations

import dataclasses
import json
from contextlib import AbstractContextManager
from pathlib import Path

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import RoundError, shown
from server.rounds.state import RoundState, without_quarantined


def lock_states(folder: Path) -> AbstractContextManager[None]:
    """The lock between reading a round's state and writing the one that follows from it."""
    return locked(folder / "state.lock")


def save_state(folder: Path, state: RoundState) -> None:
    """Writes a round's state durably."""
    text = json.dumps(dataclasses.asdict(state), indent=1, sort_keys=True) + "\n"
    write_atomically(folder / f"{state.number:05d}.json", text)


def load_state(folder: Path, number: int) -> RoundState:
    """Reads one round's state.

    Raises:
        RoundError: If there is no such file, or it is damaged.
    """
    return _load(folder / f"{number:05d}.json")


def find_state(folder: Path, number: int) -> RoundState | None:
    """Reads one round's state; None if there is no such file.

    Raises:
        RoundError: If it is damaged.
    """
    path = folder / f"{number:05d}.json"
    return _load(path) if path.exists() else None


def load_states(folder: Path) -> list[RoundState]:
    """Reads the states of all rounds, oldest first.

    Raises:
        RoundError: If a file is damaged.
    """
    return [_load(path) for path in sorted(folder.glob("[0-9]*.json"))]


def _load(path: Path) -> RoundState:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if "quarantined" not in value:
            # Earlier files have these among the rejected, with a mark.
            rejected, quarantined = without_quarantined(value.get("rejected", {}))
            value = {**value, "rejected": rejected, "quarantined": quarantined}
        # An earlier version wrote texts of sites at any length.
        for name in ("rejected", "quarantined"):
            value[name] = {site: shown(str(reason)) for site, reason in value.get(name, {}).items()}
        return RoundState(**{**value, "accepted": tuple(value["accepted"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RoundError(
            "the round's file is damaged",
            where=str(path),
            got=str(error),
            remedy="Delete it; the updates it lists are in the zoo.",
        ) from error
