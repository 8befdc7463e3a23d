"""Rows of shards: mapped from local files, in ranges from an object store."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from f2l_fed.errors import RecordErased, ZooError
from f2l_fed.zoo.format import shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.records import Floats, Record
from f2l_fed.zoo.storage.store import Store

Matrix = Literal["w", "c"]
_OPEN_SHARDS = 16
_KNOWN_PLACES = 4096
_PARALLEL = 16
_ERASED = "SELECT site, max(number) FROM forgotten GROUP BY site"
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowLocations:
    """Locations of the numbers of some records.

    Args:
        names: (s,) V32, sha256 of shards.
        shard: (n,) int32, positions in ``names``.
        row: (n,) int32, rows within the shards.
        crc32: (n, 2) uint32, checksums of weights and contexts.
    """

    names: NDArray[np.void]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    crc32: NDArray[np.uint32]

    @classmethod
    def of(cls, records: Sequence[Record]) -> RowLocations:
        """The locations of records, in their order."""
        known: dict[str, int] = {}
        shard = [known.setdefault(record.shard, len(known)) for record in records]
        return cls(
            names=np.array([bytes.fromhex(sha256) for sha256 in known], "V32"),
            shard=np.array(shard, np.int32),
            row=np.array([record.row for record in records], np.int32),
            crc32=np.array([record.crc32 for record in records], np.uint32).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.row)

    def same_places(self, other: RowLocations) -> bool:
        """Whether all rows are at the other's locations."""
        return all(
            np.array_equal(mine, its)
            for mine, its in (
                (self.names, other.names),
                (self.shard, other.shard),
                (self.row, other.row),
            )
        )

    def __getitem__(self, chosen: NDArray[np.int64] | slice) -> RowLocations:
        return RowLocations(
            names=self.names,
            shard=self.shard[chosen],
            row=self.row[chosen],
            crc32=self.crc32[chosen],
        )

    def sha256(self, position: int) -> str:
        """The shard of one row."""
        name: bytes = self.names[self.shard[position]].tobytes()
        return name.hex()


class RowReader:
    """A reader of rows of shards.

    Args:
        store: The store of the zoo.
        manifest: The manifest of the zoo.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store = store
        self._widths = {"w": manifest.weight_dim, "c": manifest.context_dim}
        # A process may map a limited number of files at a time.
        self._map = lru_cache(_OPEN_SHARDS)(self._map_shard)
        self._place = lru_cache(_KNOWN_PLACES)(self._find_place)

    def read(self, locations: RowLocations, matrix: Matrix) -> Floats:
        """Reads one row for each location, in order; a view if they are adjacent in a mapped file.

        Returns:
            (n, D) or (n, C) float32.

        Raises:
            ZooError: If a file is missing or damaged, or has no such row.
        """
        if self._are_adjacent(locations):
            return self.read_adjacent(
                locations.sha256(0), int(locations.row[0]), int(locations.row[-1]) + 1, matrix
            )
        rows = np.empty((len(locations), self._widths[matrix]), np.float32)
        order = np.lexsort((locations.row, locations.shard))
        shard, row = locations.shard[order], locations.row[order]
        # Rows in between cost nothing in a mapped file; from an object store they would be fetched.
        apart = (np.diff(shard) != 0) | ((np.diff(row) > 1) & (not self._store.mapped))
        ends = (np.flatnonzero(apart) + 1).tolist()

        def fill(first: int, last: int) -> None:
            start, stop = int(row[first]), int(row[last - 1]) + 1
            part = self.read_adjacent(locations.sha256(int(order[first])), start, stop, matrix)
            rows[order[first:last]] = part[row[first:last] - start]

        bounds = [0, *ends, len(order)] if len(order) else []
        if self._store.mapped or len(bounds) <= 2:
            for pair in pairwise(bounds):
                fill(*pair)
        else:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                list(pool.map(fill, bounds[:-1], bounds[1:]))
        return rows

    def check(self, locations: RowLocations, rows: Floats, matrix: Matrix) -> None:
        """Compares rows with their checksums.

        Raises:
            ZooError: At the first row that differs.
        """
        step = self._widths[matrix] * _FLOAT.itemsize
        data: Any = rows.reshape(-1).view(np.uint8)
        expected = locations.crc32[:, "wc".index(matrix)].tolist()
        for number, checksum in enumerate(expected):
            if zlib.crc32(data[number * step : (number + 1) * step]) != checksum:
                raise self._damaged(
                    locations.sha256(number), int(locations.row[number]), matrix, checksum
                )

    def _are_adjacent(self, locations: RowLocations) -> bool:
        count = len(locations)
        return (
            count > 0
            and int(locations.row[-1]) - int(locations.row[0]) == count - 1
            and bool((locations.shard == locations.shard[0]).all())
            and bool((np.diff(locations.row) == 1).all())
        )

    def read_adjacent(self, sha256: str, start: int, stop: int, matrix: Matrix) -> Floats:
        """Adjacent rows of one shard; a view if it is mapped."""
        if self._store.mapped:
            shard = self._map(sha256)
            part = (shard.w if matrix == "w" else shard.c)[start:stop]
        else:
            place, width = self._place(sha256), self._widths[matrix]
            first = place.start if matrix == "w" else place.split
            step = width * _FLOAT.itemsize
            ranges = [(first + start * step, first + min(stop, place.rows) * step)]
            data = b"".join(
                self._store.get_ranges(shards.name(sha256), ranges if start < place.rows else [])
            )
            part = np.frombuffer(data, _FLOAT).reshape(-1, width)
        if len(part) < stop - start:
            raise self._damaged(sha256, start + len(part), matrix, None)
        return part

    def _damaged(self, sha256: str, row: int, matrix: Matrix, checksum: int | None) -> ZooError:
        what = {"w": "weights", "c": "a context"}[matrix]
        return ZooError(
            "the shard is damaged",
            where=f"{self._store.describe(shards.name(sha256))}, row {row}",
            expected=what if checksum is None else f"{what} with the checksum {checksum:08x}",
            remedy="Restore this file from a backup; verify the zoo to see what else is wrong.",
        )

    def _map_shard(self, sha256: str) -> shards.Shard:
        file = shards.name(sha256)
        return shards.decode(
            self._store.get(file),
            where=self._store.describe(file),
            weight_dim=self._widths["w"],
            context_dim=self._widths["c"],
        )

    def _find_place(self, sha256: str) -> shards.ShardExtent:
        file = shards.name(sha256)
        (head,) = self._store.get_ranges(file, [(0, shards.HEAD_BYTES)])
        return shards.read_extent(
            head,
            self._store.size_bytes(file),
            where=self._store.describe(file),
            weight_dim=self._widths["w"],
            context_dim=self._widths["c"],
        )


def erasures(index: Index) -> dict[str, int]:
    """The commit of each site's last erasure, by name."""
    return dict(index.ask(lambda db: db.execute(_ERASED).fetchall()))


def require_readable(index: Index, records: Iterable[Record], commit: int) -> None:
    """Requires that a snapshot may read some records.

    Raises:
        RecordErased: If a site has asked to be forgotten since.
        ZooError: If a record is younger than the snapshot.
    """
    erased = erasures(index)
    for record in records:
        if record.commit > commit:
            raise ZooError(
                "the record is younger than the snapshot",
                where=record.key,
                expected=f"commit {commit} or earlier",
                got=f"commit {record.commit}",
                remedy="Take a newer snapshot.",
            )
        if erased.get(record.site, 0) > record.commit:
            raise RecordErased(
                "the record was erased because its site asked to be forgotten",
                where=f"record {record.key} of site {record.site}",
                expected=f"a snapshot of commit {erased[record.site]} or later",
                got=f"commit {commit}",
                remedy="Take a newer snapshot and leave this site out.",
            )
