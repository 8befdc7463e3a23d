"""Queries: records by site, round, parent, status, key and metric."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from f2l_fed.zoo.index import record_of
from f2l_fed.zoo.records import Status

_METRIC = """
  AND EXISTS (SELECT 1 FROM json_each(r.body, '$.metrics') m
              WHERE m.key = :name{0} AND m.value BETWEEN :low{0} AND :high{0})"""
_ROWS = """
FROM records r
WHERE number <= :commit
  AND NOT EXISTS (SELECT 1 FROM forgotten f
                  WHERE f.site = r.site AND f.number > r.number AND f.number <= :commit)"""
_EQUAL = "\n  AND r.{0} = :{0}"
_KEYS = "\n  AND r.key IN (SELECT value FROM json_each(:keys))"
_LATEST = """
FROM records WHERE rowid IN (
  SELECT id FROM (
    SELECT r.rowid AS id,
           row_number() OVER (PARTITION BY site ORDER BY round DESC, r.rowid DESC) AS place {0})
  WHERE place = 1)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Conditions on records, all of which must hold.

    Args:
        site: The site; None for all.
        round: The round; None for all.
        parent: The release that generated the starts, "" for none; None for all.
        status: The status; None for all.
        keys: Keys to choose from, such as those that a release was fitted on; None for all.
        metrics: Least and greatest value, both included, by name of a metric.
        latest_per_site: Whether only the last record of each site's highest round is meant, among
            those that meet the other conditions.
    """

    site: str | None = None
    round: int | None = None
    parent: str | None = None
    status: Status | None = "accepted"
    keys: Sequence[str] | None = None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    latest_per_site: bool = False

    def sql(self, columns: str, commit: int) -> tuple[str, dict[str, object]]:
        """The statement and its parameters; rows come in the order of the log.

        Args:
            columns: Columns of the table records.
            commit: Commit of the snapshot.
        """
        values: dict[str, object] = {"commit": commit}
        rows = _ROWS
        # Only the given conditions, so that SQLite sees which index to use.
        for name in ("site", "round", "parent", "status"):
            if (value := getattr(self, name)) is not None:
                rows, values[name] = rows + _EQUAL.format(name), value
        if self.keys is not None:
            rows, values["keys"] = rows + _KEYS, json.dumps(list(self.keys))
        for number, (name, (low, high)) in enumerate(self.metrics.items()):
            rows += _METRIC.format(number)
            values.update({f"name{number}": name, f"low{number}": low, f"high{number}": high})
        if self.latest_per_site:
            rows = _LATEST.format(rows)
        return f"SELECT {columns} {rows} ORDER BY rowid", values

    def check_metrics(self, db: sqlite3.Connection, commit: int) -> None:
        """Checks the records that metrics choose from, within a question to the index.

        Metrics lie in no index of SQLite, so a damaged one would keep its record away unseen.

        Raises:
            sqlite3.DatabaseError: If one is damaged; `Index.ask` then rebuilds the index.
        """
        if self.metrics:
            others = replace(self, metrics={}, latest_per_site=False)
            for row in db.execute(*others.sql("*", commit)):
                record_of(row)
