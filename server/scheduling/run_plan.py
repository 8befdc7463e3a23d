"""What a server is doing about rounds, and what it has noted to go on with it."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import RoundError

_LOG = logging.getLogger("f2l.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedRounds:
    """What is being done.

    Args:
        by: Who asked for it.
        sites: Sites to wait for before a round.
        remaining: Rounds that are to be started after the present run.
        run: Number of the present run, or of the last one while the next is due; 0 for none.
        reason: Why the last run ended other than well; "" otherwise.
    """

    by: str = ""
    sites: int = 0
    remaining: int = 0
    run: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan(RequestedRounds):
    """The same as it is noted: enough to go on from, wherever a server was killed.

    Args:
        until: Number of the last round that is wanted. A number, not a count: what is left to do
            then follows from the rounds that are there.
        due: Whether a run is to be started. It is noted before, so that none goes unnoticed.
    """

    until: int = 0
    due: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing is due."""
        return not self.run and not self.due

    def told(self) -> RequestedRounds:
        """What others are told of it."""
        return RequestedRounds(
            by=self.by,
            sites=self.sites,
            remaining=self.remaining,
            run=self.run,
            reason=self.reason,
        )

    @classmethod
    def read(cls, path: Path) -> RunPlan:
        """What is noted in a file; nothing is wanted where there is none, or a damaged one."""
        # Loaded where it is needed: most commands can do without PyTorch.
        from f2l_fed.core.config_parsing import from_mapping

        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError):
            _LOG.warning("%s can't be read and is left aside", path)
            return cls()
        return from_mapping(cls, values, where=str(path))

    def note(self, path: Path) -> None:
        """Writes it durably.

        Raises:
            RoundError: If it can't be written.
        """
        try:
            write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        except OSError as error:
            raise RoundError(
                "what is wanted can't be noted",
                where=str(path),
                got=error.strerror or str(error),
                remedy="Make room, then try again.",
            ) from error
