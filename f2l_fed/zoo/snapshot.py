"""Snapshots: the zoo as it was at one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo import shards
from f2l_fed.zoo.index import Index, record_of
from f2l_fed.zoo.manifest import Manifest
from f2l_fed.zoo.records import Floats, Record, Status
from f2l_fed.zoo.store import Store

_RECORDS = """
SELECT * FROM records r
WHERE number <= :commit
  AND (:site IS NULL OR site = :site)
  AND (:round IS NULL OR round = :round)
  AND (:status IS NULL OR status = :status)
  AND NOT EXISTS (SELECT 1 FROM forgotten f
                  WHERE f.site = r.site AND f.number > r.number AND f.number <= :commit)
ORDER BY rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An immutable view: later commits don't show in it.

    Rows that were erased after its commit are still listed by `records`, but can't be read.

    Args:
        commit: Number of the last commit it contains.
    """

    commit: int
    manifest: Manifest = field(repr=False)
    store: Store = field(repr=False)
    index: Index = field(repr=False)

    def records(
        self,
        *,
        site: str | None = None,
        round: int | None = None,
        status: Status | None = "accepted",
        latest_per_site: bool = False,
    ) -> tuple[Record, ...]:
        """The records that meet all conditions, in the order of the log.

        Args:
            site: Only this site's.
            round: Only this round's.
            status: Only those with this status; None for all.
            latest_per_site: Of each site only the one of the highest round, and of these the last.
        """
        wanted = {"commit": self.commit, "site": site, "round": round, "status": status}
        found = self.index.ask(
            lambda db: tuple(record_of(row) for row in db.execute(_RECORDS, wanted).fetchall())
        )
        if not latest_per_site:
            return found
        latest: dict[str, int] = {}
        for position, record in enumerate(found):
            best = latest.get(record.site)
            if best is None or record.round >= found[best].round:
                latest[record.site] = position
        return tuple(found[position] for position in sorted(latest.values()))

    def weights(self, records: Sequence[Record]) -> Floats:
        """Weights of some of its records.

        Returns:
            (n, D) float32, one row per record, in their order.

        Raises:
            ZooError: If a row was erased, is damaged, or isn't in this snapshot.
        """
        return self._read(records, "w", self.manifest.weight_dim)

    def contexts(self, records: Sequence[Record]) -> Floats:
        """Contexts of some of its records.

        Returns:
            (n, C) float32, one row per record, in their order.

        Raises:
            ZooError: As `weights` does.
        """
        return self._read(records, "c", self.manifest.context_dim)

    def _read(self, records: Sequence[Record], matrix: Literal["w", "c"], width: int) -> Floats:
        self._require_readable(records)
        rows = np.empty((len(records), width), np.float32)
        try:
            # Shard by shard, since a process may map only so many files at a time.
            order = sorted(range(len(records)), key=lambda i: records[i].shard)
            for sha256, group in groupby(order, key=lambda i: records[i].shard):
                shard = self._open(sha256)
                for i in group:
                    rows[i] = self._row(shard, records[i], matrix)
        except ZooError:
            # An erasure that came in between explains a missing file better.
            self._require_readable(records)
            raise
        return rows

    def _open(self, sha256: str) -> shards.Shard:
        file = shards.name(sha256)
        return shards.decode(
            self.store.get(file),
            where=self.store.describe(file),
            weight_dim=self.manifest.weight_dim,
            context_dim=self.manifest.context_dim,
        )

    def _row(self, shard: shards.Shard, record: Record, matrix: Literal["w", "c"]) -> Floats:
        rows, expected = (shard.w, record.crc32[0]) if matrix == "w" else (shard.c, record.crc32[1])
        if record.row >= len(rows) or shards.checksum(rows[record.row]) != expected:
            raise ZooError(
                "the shard is damaged",
                where=f"{self.store.describe(shards.name(record.shard))}, row {record.row}",
                expected=f"{matrix} of record {record.key} with the checksum {expected:08x}",
                remedy="Restore this file from a backup; verify the zoo to see what else is wrong.",
            )
        row: Floats = rows[record.row]
        return row

    def _require_readable(self, records: Sequence[Record]) -> None:
        erased = dict(
            self.index.ask(
                lambda db: db.execute(
                    "SELECT site, max(number) FROM forgotten GROUP BY site"
                ).fetchall()
            )
        )
        for record in records:
            if record.commit > self.commit:
                raise ZooError(
                    "the record is younger than the snapshot",
                    where=record.key,
                    expected=f"commit {self.commit} or earlier",
                    got=f"commit {record.commit}",
                    remedy="Take a newer snapshot.",
                )
            if erased.get(record.site, 0) > record.commit:
                raise ZooError(
                    "the record was erased because its site asked to be forgotten",
                    where=f"record {record.key} of site {record.site}",
                    expected=f"a snapshot of commit {erased[record.site]} or later",
                    got=f"commit {self.commit}",
                    remedy="Take a newer snapshot and leave this site out.",
                )
