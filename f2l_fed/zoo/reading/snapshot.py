"""Snapshots: the zoo as it was at one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index, record_of
from f2l_fed.zoo.reading.query import Query
from f2l_fed.zoo.reading.row_reader import Matrix, RowLocations, RowReader, require_readable
from f2l_fed.zoo.records import Floats, Record, Status
from f2l_fed.zoo.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An immutable view of a zoo, without later commits.

    Rows that were erased after its commit are still listed by `records`, but can't be read.

    Args:
        commit: Number of the last commit it contains.
        manifest: The manifest of the zoo.
        store: The store of the zoo.
        index: The index of the zoo.
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
        parent: str | None = None,
        status: Status | None = "accepted",
        keys: Sequence[str] | None = None,
        metrics: Mapping[str, tuple[float, float]] | None = None,
        latest_per_site: bool = False,
    ) -> tuple[Record, ...]:
        """The records that meet all conditions of a `Query`, in the order of the log."""
        query = Query(
            site=site,
            round=round,
            parent=parent,
            status=status,
            keys=keys,
            metrics=metrics or {},
            latest_per_site=latest_per_site,
        )
        return self.select(query)

    def select(self, query: Query) -> tuple[Record, ...]:
        """The records that meet a query, in the order of the log."""

        def question(db: sqlite3.Connection) -> tuple[Record, ...]:
            query.check_metrics(db, self.commit)
            found = db.execute(*query.sql("*", self.commit)).fetchall()
            return tuple(record_of(row) for row in found)

        return self.index.ask(question)

    def rounds(self) -> dict[str, dict[int, int]]:
        """Number of accepted records by site and round, without reading them."""
        rows, values = Query().sql("site, round", self.commit)
        counted = f"SELECT site, round, count(*) FROM ({rows}) GROUP BY site, round"
        found: dict[str, dict[int, int]] = {}
        for site, number, count in self.index.ask(
            lambda db: db.execute(counted, values).fetchall()
        ):
            found.setdefault(site, {})[number] = count
        return found

    def weights(self, records: Sequence[Record]) -> Floats:
        """Reads the weights of some of its records.

        Returns:
            (n, D) float32, one row per record, in their order.

        Raises:
            RecordErased: If a site has asked to be forgotten since.
            ZooError: If a row is damaged or isn't in this snapshot.
        """
        return self._read(records, "w")

    def contexts(self, records: Sequence[Record]) -> Floats:
        """Reads the contexts of some of its records.

        Returns:
            (n, C) float32, one row per record, in their order.

        Raises:
            RecordErased, ZooError: As with `weights`.
        """
        return self._read(records, "c")

    def _read(self, records: Sequence[Record], matrix: Matrix) -> Floats:
        require_readable(self.index, records, self.commit)
        reading, locations = RowReader(self.store, self.manifest), RowLocations.of(records)
        try:
            rows = reading.read(locations, matrix)
            reading.check(locations, rows, matrix)
        except ZooError:
            # An erasure in between explains a missing file better.
            require_readable(self.index, records, self.commit)
            found = self._located_again(records)
            if found == list(records):
                raise
            return self._read(found, matrix)
        # Callers keep and change the rows; a view of a file would let them do neither.
        return rows if rows.flags.owndata and rows.flags.writeable else rows.copy()

    def _located_again(self, records: Sequence[Record]) -> list[Record]:
        """The records with their present locations, which a merge may have changed."""
        query = Query(status=None, keys=[record.key for record in records])
        by_key = {record.key: record for record in self.select(query)}
        return [by_key.get(record.key, record) for record in records]
