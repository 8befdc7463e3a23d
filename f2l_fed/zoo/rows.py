"""Rows out of shards: mapped where the files are here, in ranges where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from f2l_fed.errors import RecordErased, ZooError
from f2l_fed.zoo import shards
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.manifest import Manifest
from f2l_fed.zoo.records import Floats, Record
from f2l_fed.zoo.store import Store

Matrix = Literal["w", "c"]
_OPEN_SHARDS = 16
_KNOWN_PLACES = 4096
_ERASED = "SELECT site, max(number) FROM forgotten GROUP BY site"
_FLOAT = np.dtype("<f4")


class Spot(NamedTuple):
    """Where the numbers of one record lie; without what else is known of it."""

    commit: int
    shard: str
    row: int
    key: str
    site: str
    w_crc32: int
    c_crc32: int

    @classmethod
    def of(cls, record: Record) -> Spot:
        """The spot of a record."""
        place = (record.commit, record.shard, record.row)
        return cls(*place, record.key, record.site, *record.crc32)


class Rows:
    """Reads rows of shards.

    Args:
        store: Of the zoo.
        manifest: Of the zoo.
        check: Whether to compare each row with its checksum.
    """

    def __init__(self, store: Store, manifest: Manifest, *, check: bool = True) -> None:
        self._store, self._check = store, check
        self._widths = {"w": manifest.weight_dim, "c": manifest.context_dim}
        # A process may map only so many files at a time.
        self._map = lru_cache(_OPEN_SHARDS)(self._map_shard)
        self._place = lru_cache(_KNOWN_PLACES)(self._find_place)

    def read(self, spots: Sequence[Spot], matrix: Matrix) -> Floats:
        """One row for each spot, in their order; a view if they lie side by side in a mapped file.

        Returns:
            (n, D) or (n, C) float32.

        Raises:
            ZooError: If a file is missing or damaged, or a row is.
        """
        order = sorted(range(len(spots)), key=lambda i: (spots[i].shard, spots[i].row))
        runs = _runs(spots, order)
        if len(runs) == 1 and order == list(range(len(spots))):
            ((sha256, start, stop, _),) = runs
            return self._checked(spots, self._parts(sha256, [(start, stop)], matrix)[0], matrix)
        rows = np.empty((len(spots), self._widths[matrix]), np.float32)
        done = 0
        while done < len(runs):
            sha256 = runs[done][0]
            same = [run for run in runs[done:] if run[0] == sha256]
            parts = self._parts(sha256, [(start, stop) for _, start, stop, _ in same], matrix)
            for (_, _, _, places), part in zip(same, parts, strict=True):
                rows[places] = self._checked([spots[i] for i in places], part, matrix)
            done += len(same)
        return rows

    def _parts(
        self, sha256: str, ranges: Sequence[tuple[int, int]], matrix: Matrix
    ) -> list[Floats]:
        if self._store.mapped:
            shard = self._map(sha256)
            whole = shard.w if matrix == "w" else shard.c
            return [whole[start:stop] for start, stop in ranges]
        place, width = self._place(sha256), self._widths[matrix]
        first = place.start if matrix == "w" else place.split
        step = width * _FLOAT.itemsize
        if max(stop for _, stop in ranges) > place.rows:
            return [np.empty((0, width), np.float32)] * len(ranges)
        found = self._store.get_ranges(
            shards.name(sha256),
            [(first + start * step, first + stop * step) for start, stop in ranges],
        )
        return [np.frombuffer(part, _FLOAT).reshape(-1, width) for part in found]

    def _checked(self, spots: Sequence[Spot], part: Floats, matrix: Matrix) -> Floats:
        for number, spot in enumerate(spots):
            expected = spot.w_crc32 if matrix == "w" else spot.c_crc32
            if number >= len(part) or (self._check and shards.checksum(part[number]) != expected):
                raise ZooError(
                    "the shard is damaged",
                    where=f"{self._store.describe(shards.name(spot.shard))}, row {spot.row}",
                    expected=f"{matrix} of record {spot.key} with the checksum {expected:08x}",
                    remedy="Restore this file from a backup; verify the zoo to see what else is "
                    "wrong.",
                )
        return part

    def _map_shard(self, sha256: str) -> shards.Shard:
        file = shards.name(sha256)
        return shards.decode(
            self._store.get(file),
            where=self._store.describe(file),
            weight_dim=self._widths["w"],
            context_dim=self._widths["c"],
        )

    def _find_place(self, sha256: str) -> shards.Place:
        file = shards.name(sha256)
        (head,) = self._store.get_ranges(file, [(0, shards.HEAD_BYTES)])
        return shards.placed(
            head,
            self._store.size_bytes(file),
            where=self._store.describe(file),
            weight_dim=self._widths["w"],
            context_dim=self._widths["c"],
        )


def require_readable(index: Index, spots: Iterable[Spot], commit: int) -> None:
    """Raises if a snapshot may not read some rows.

    Raises:
        RecordErased: If a site has asked to be forgotten since.
        ZooError: If a record is younger than the snapshot.
    """
    erased = dict(index.ask(lambda db: db.execute(_ERASED).fetchall()))
    for spot in spots:
        if spot.commit > commit:
            raise ZooError(
                "the record is younger than the snapshot",
                where=spot.key,
                expected=f"commit {commit} or earlier",
                got=f"commit {spot.commit}",
                remedy="Take a newer snapshot.",
            )
        if erased.get(spot.site, 0) > spot.commit:
            raise RecordErased(
                "the record was erased because its site asked to be forgotten",
                where=f"record {spot.key} of site {spot.site}",
                expected=f"a snapshot of commit {erased[spot.site]} or later",
                got=f"commit {commit}",
                remedy="Take a newer snapshot and leave this site out.",
            )


def _runs(spots: Sequence[Spot], order: Sequence[int]) -> list[tuple[str, int, int, list[int]]]:
    """Rows side by side: shard, first row, row behind the last, and the places they are for."""
    runs: list[tuple[str, int, int, list[int]]] = []
    for i in order:
        spot = spots[i]
        if runs and runs[-1][0] == spot.shard and runs[-1][2] == spot.row:
            shard, start, stop, places = runs.pop()
            places.append(i)
            runs.append((shard, start, stop + 1, places))
        else:
            runs.append((spot.shard, spot.row, spot.row + 1, [i]))
    return runs
