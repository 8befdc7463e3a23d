"""The journal of a round: one line for the end of each task, appended when it ends.

The zoo alone says which updates were accepted; the journal adds what the zoo can't know, rejections
and traffic, so that a round that is resumed asks nobody twice. A line is written after the update
is durable. If the process dies in between, the zoo's record counts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from f2l_fed.errors import shown

Code = Literal[
    "accepted",
    "silent",
    "failed",
    "refused",
    "unable",
    "garbage",
    "round",
    "count",
    "start",
    "admission",
    "quarantined",
    "unchanged",
]
"""The end of a task.

"silent": no reply in time. "failed": the site's process or its node broke. "refused": by the site,
for a reason that may be gone the next time. "unable": by the site, which can't take part as things
are and does not count for the quorum. "garbage": not an update in the agreed form and layout.
"round", "count", "start": an update of another round, with another number of networks, or from a
start that is not among the candidates. "admission": an update that may not enter the zoo.
"quarantined": an update that a person has to look at before it may. "unchanged": a network of a
release as it was sent, since the site has nothing left to learn; that is a success, and nothing of
it enters the zoo.
"""

PASSING: frozenset[str] = frozenset({"silent", "failed", "unable"})
"""The codes of sites that may be asked again in the round when they come back as another node."""

SUCCESSES: frozenset[str] = frozenset({"accepted", "unchanged"})
"""The codes of sites that have done their part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """The end of one task.

    Args:
        site: The site that was asked.
        code: See `Code`.
        reason: For people; "" if accepted.
        finding: Key of `f2l_fed.admission.REASONS` where admission found something, or the code
            that the site has given, see `f2l_fed.wire.refusals`.
        bytes_up: Size of the reply.
        bytes_down: Size of the task.
    """

    site: str
    code: Code
    reason: str = ""
    finding: str = ""
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of one round, as a file.

    Args:
        path: Created with the first line.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path, number: int) -> Journal:
        """The journal of a round, beside its state."""
        return cls(folder / f"{number:05d}.answers.jsonl")

    def append(self, entry: JournalEntry) -> None:
        """Adds a line; a single write, so that only a last line can be torn."""
        with self.path.open("ab+") as file:
            end = file.tell()
            if end:
                file.seek(end - 1)
            start = b"" if not end or file.read(1) == b"\n" else b"\n"
            file.write(start + json.dumps(asdict(entry)).encode() + b"\n")

    def read(self) -> list[JournalEntry]:
        """Reads all whole lines; none if there is no file."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().split(b"\n"):
            try:
                entry = JournalEntry(**json.loads(line))
                # An earlier version wrote texts of sites at any length.
                found.append(replace(entry, reason=shown(entry.reason)))
            except (ValueError, TypeError):
                # Torn by a crash: the site is asked again, or its record is in the zoo.
                continue
        return found
