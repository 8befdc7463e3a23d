"""Records of a zoo and reports about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["accepted", "quarantined"]
Kind = Literal["append", "forget", "merge"]
Floats = NDArray[np.float32]

RELEASED = "released"
"""Metric of records that a person released from quarantine: 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewRecord:
    """A network on its way into the zoo.

    Args:
        key: ``round/site/candidate``; a key enters once, whatever comes with it later.
        site: The site that returned it.
        round: Number of the round, from 0.
        parent: The release that generated its start; "" for none.
        weights: (D,) float32, finite, in the order of the zoo's layout.
        context: (C,) float32, finite, the probe update.
        metrics: Finite numbers by name.
        status: "accepted", or "quarantined" with a reason.
        reason: Why it is quarantined; "" if it isn't.
    """

    key: str
    site: str
    round: int
    parent: str = ""
    weights: Floats
    context: Floats
    metrics: Mapping[str, float] = field(default_factory=dict)
    status: Status = "accepted"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A network in the zoo: its entry in the log and the location of its numbers.

    Args:
        commit: Number of the commit that appended it.
        shard: sha256 of the shard that has it now; a merge changes that and its row alone.
        row: Row within the shard, from 0.
        crc32: Checksums of the little-endian bytes of its weights and of its context.
    """

    key: str
    site: str
    round: int
    parent: str
    metrics: Mapping[str, float]
    status: Status
    reason: str
    commit: int
    shard: str
    row: int
    crc32: tuple[int, int]

    def __hash__(self) -> int:
        return hash((self.commit, self.key))

    def to_row(self) -> dict[str, Any]:
        """The record's own part of a log entry, without the fields that all rows share."""
        return {
            "key": self.key,
            "round": self.round,
            "parent": self.parent,
            "metrics": dict(self.metrics),
            "status": self.status,
            "reason": self.reason,
            "crc32": list(self.crc32),
        }

    @classmethod
    def from_row(
        cls, value: Mapping[str, Any], *, commit: int, site: str, shard: str, row: int
    ) -> Record:
        """Reads a record that `to_row` wrote.

        Raises:
            KeyError, TypeError, ValueError: If the value is anything else.
        """
        weights_crc32, context_crc32 = value["crc32"]
        return cls(
            key=value["key"],
            site=site,
            round=int(value["round"]),
            parent=value["parent"],
            metrics={name: float(number) for name, number in value["metrics"].items()},
            status=value["status"],
            reason=value["reason"],
            commit=commit,
            shard=shard,
            row=row,
            crc32=(int(weights_crc32), int(context_crc32)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A durable step of the log; number 0 is the empty zoo before the first.

    Args:
        number: From 1.
        kind: "append", "forget" or "merge".
        sha256: sha256 of the entry's bytes; 64 zeros for number 0.
        rows: Number of records it appended.
    """

    number: int
    kind: Kind
    sha256: str
    rows: int


GENESIS = Commit(number=0, kind="append", sha256="0" * 64, rows=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of a zoo: its file, the row if it concerns one, and a clause about it.

    >>> print(Fault(file="shards/ab.safetensors", row=3, what="a weight is not finite"))
    shards/ab.safetensors, row 3: a weight is not finite
    """

    file: str
    what: str
    row: int | None = None

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooStats:
    """Counts of a zoo; erased rows don't count.

    Args:
        records: Number of records, accepted and quarantined.
        quarantined: Number of quarantined records.
        sites: Number of sites with at least one record.
        rounds: Number of rounds with at least one record.
        commits: Length of the log.
        size_bytes: Size of the weights and contexts of all records.
        forgotten: Sites that were ever erased, sorted.
    """

    records: int
    quarantined: int
    sites: int
    rounds: int
    commits: int
    size_bytes: int
    forgotten: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """Files removed from a zoo because its log doesn't need them, or no longer.

    Args:
        files: Number of files.
        size_bytes: Their size.
    """

    files: int
    size_bytes: int
