"""The plan of requested rounds, saved so that a server that was killed goes on with it."""

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
    """The rounds that were requested and are not done yet.

    Args:
        by: Who requested them.
        sites: Sites to wait for before a round.
        remaining: Number of rounds to start after the present run.
        run: Number of the present run, or of the last one while the next is due; 0 for none.
        reason: Why the last run did not complete; "" if it did.
    """

    by: str = ""
    sites: int = 0
    remaining: int = 0
    run: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan(RequestedRounds):
    """The run plan: requested rounds as they are saved, enough to go on after any crash.

    Args:
        until: Number of the last requested round. A number, not a count: what is left to do follows
            from the rounds that exist.
        due: Whether a run is to be started. It is saved before the start, so that no run is lost.
    """

    until: int = 0
    due: bool = False

    @property
    def idle(self) -> bool:
        """Whether no run is under way or due."""
        return not self.run and not self.due

    def requested(self) -> RequestedRounds:
        """The part of the plan that others see."""
        return RequestedRounds(
            by=self.by,
            sites=self.sites,
            remaining=self.remaining,
            run=self.run,
            reason=self.reason,
        )

    @classmethod
    def read(cls, path: Path) -> RunPlan:
        """Reads a plan; it is empty if the file is missing or damaged."""
        # Loaded where it is needed: most commands can do without PyTorch.
        from f2l_fed.core.config_parsing import from_mapping

        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError):
            _LOG.warning("%s can't be read and is ignored", path)
            return cls()
        return from_mapping(cls, values, where=str(path))

    def save(self, path: Path) -> None:
        """Writes the plan durably.

        Raises:
            RoundError: If it can't be written.
        """
        try:
            write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        except OSError as error:
            raise RoundError(
                "the run plan can't be saved",
                where=str(path),
                got=error.strerror or str(error),
                remedy="Make room, then try again.",
            ) from error
