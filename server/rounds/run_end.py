"""The end of a run, or of a retraining job, as a record in the federation's folder.

The process that ends writes it; the process that has started it reads it. Without a record the
process was killed, or its disk is full.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import F2LError, shown
from server.rounds.state import Interrupted, is_transient


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The end of a run.

    Args:
        run: Flower's number of the run; of a retraining job, release and commit.
        outcome: "completed", "failed" if a repetition would fail too, "interrupted" if it may not.
        reason: One sentence; "" if the run is completed.
    """

    run: str
    outcome: Literal["completed", "failed", "interrupted"]
    reason: str = ""

    @classmethod
    def of(cls, run: str, error: Exception) -> RunEnd:
        """The end that an error makes."""
        may_pass = isinstance(error, Interrupted) or is_transient(error)
        reason = (
            str(error) if isinstance(error, F2LError) else shown(f"{type(error).__name__}: {error}")
        )
        return cls(run=run, outcome="interrupted" if may_pass else "failed", reason=reason)

    @classmethod
    def read(cls, path: Path, run: str) -> RunEnd | None:
        """Reads the end of a run; None if the file is missing or damaged, or of another run."""
        try:
            end = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return end if end.run == run else None

    def write(self, path: Path) -> None:
        """Writes the record if it can be written; a full disk must not hide the error itself."""
        with suppress(OSError):
            write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def run_end_path(root: Path) -> Path:
    """The file of the last run's end in a federation's folder."""
    return root / "flower" / "run-end.json"


def retraining_end_path(root: Path, id: str) -> Path:
    """The file of the end of a release's last retraining job in a federation's folder."""
    return root / "rounds" / f"retraining-{id}.json"
