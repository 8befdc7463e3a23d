"""The zoo: append, read, forget, verify, compact, copy, export and import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from f2l_fed.errors import ZooError
from f2l_fed.zoo import append, index
from f2l_fed.zoo.format import commit_log, manifest, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.maintenance import compaction, erasure
from f2l_fed.zoo.maintenance.replication import replicate
from f2l_fed.zoo.maintenance.verify import verify
from f2l_fed.zoo.reading.row_reader import erasures
from f2l_fed.zoo.reading.snapshot import Snapshot
from f2l_fed.zoo.records import (
    Commit,
    Compaction,
    Fault,
    Floats,
    NewRecord,
    Record,
    Status,
    ZooStats,
)
from f2l_fed.zoo.storage.local import LocalStore
from f2l_fed.zoo.storage.s3 import S3Store
from f2l_fed.zoo.storage.store import Store
from f2l_fed.zoo.transfer import export_file, import_file
from f2l_fed.zoo.writer import Writer

VERIFICATIONS = 3
_STATS = """
SELECT count(*), count(CASE status WHEN 'quarantined' THEN 1 END), count(DISTINCT site),
       count(DISTINCT round), (SELECT count(*) FROM commits) FROM live
"""


class Zoo:
    """A zoo, made by `Zoo.create` or `Zoo.open`.

    Any number of processes and threads may use the same one.
    """

    def __init__(self, store: Store, about: Manifest, view: Index) -> None:
        self._store = store
        self._index = view
        self._writer = Writer(store, view, about)
        self.manifest = about

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        lineage: str,
        layout_digest: str,
        layout: Mapping[str, Any],
        context_dim: int,
    ) -> Zoo:
        """Creates an empty zoo.

        Args:
            path: A folder without a zoo, which is created when needed, or s3://bucket/prefix.
            lineage: Name of the networks' common ancestry.
            layout_digest: Digest of the weight layout.
            layout: The layout's JSON value.
            context_dim: C, length of a context.

        Raises:
            ZooError: If there is a zoo already, or the folder can't be written.
        """
        about = Manifest(
            lineage=lineage, layout_digest=layout_digest, layout=layout, context_dim=context_dim
        )
        store = _store(path)
        store.prepare()
        manifest.write(store, about)
        return cls.open(path)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a zoo, sound or damaged.

        Raises:
            ZooError: If the place can't be read.
        """
        return _store(path).find_all([manifest.NAME]) != [None]

    @classmethod
    def open(cls, path: Path | str) -> Zoo:
        """Opens a zoo and finishes erasures that were interrupted.

        A zoo with a damaged log opens too, so that it can be verified; reading it raises.

        Raises:
            ZooError: If there is no zoo, or its format is unknown.
        """
        store = _store(path)
        zoo = cls(store, manifest.read(store), Index(store, store.index_folder / "index.sqlite"))
        with suppress(ZooError):
            if erasure.is_unfinished(zoo._store, zoo._index, zoo.manifest):
                zoo._sweep()
        return zoo

    def append(self, new: Sequence[NewRecord]) -> Commit:
        """Adds records; they are durable on return.

        Keys in the log, those of erased records included, are left out, so that a message that
        comes twice counts once and erased rows don't come back.

        Returns:
            The new commit, or the last one if there was nothing to add.

        Raises:
            ZooError: If a record is invalid or can't be written. Then no record was added.
        """
        append.check_records(new, self.manifest)
        limit = shards.rows_per_shard(self.manifest.weight_dim, self.manifest.context_dim)

        def known() -> tuple[Commit, set[str]]:
            return self._index.known([record.key for record in new])

        def draft(head: Commit, known: set[str]) -> commit_log.Entry | None:
            unknown = [record for record in new if record.key not in known]
            return append.write_rows(self._store, unknown, head, limit) if unknown else None

        with self._store.lock(shared=True):
            return self._writer.commit(known, draft)

    def snapshot(self, commit: int | None = None) -> Snapshot:
        """The zoo as of a commit, by default the last.

        Raises:
            ZooError: If there is no such commit, or the log is damaged.
        """
        head = self._index.head().number
        if commit is not None and not 0 <= commit <= head:
            raise ZooError(
                "no such commit",
                where=self._store.describe("log"),
                expected=f"0 to {head}",
                got=str(commit),
            )
        return Snapshot(
            commit=head if commit is None else commit,
            manifest=self.manifest,
            store=self._store,
            index=self._index,
        )

    def forget(self, site: str) -> Commit:
        """Erases all rows of a site for good: first the tombstone, then the files.

        Returns:
            The tombstone's commit; the last one if nothing was left to erase.

        Raises:
            ZooError: If the zoo never had a record of this site. If a file can't be deleted, or
                rows of other sites in the same file can't be moved: then all other files are
                deleted, and `open` tries again.
        """

        def count() -> tuple[Commit, tuple[int, int]]:
            return self._index.ask(lambda db: (index.head(db), erasure.count(db, site)))

        def draft(head: Commit, counts: tuple[int, int]) -> commit_log.Entry | None:
            return erasure.tombstone(self._store, head, site, *counts)

        with self._store.lock(shared=False):
            commit = self._writer.commit(count, draft)
            erasure.finish(self._writer)
        return commit

    def erasures(self) -> dict[str, int]:
        """The commit of each site's last erasure, by name."""
        return erasures(self._index)

    def verify(self) -> tuple[Fault, ...]:
        """Reads everything and reports all faults; empty if there are none."""
        for _ in range(VERIFICATIONS):
            commits = commit_log.numbers(self._store)
            faults = verify(self._store, self.manifest)
            # A row that was erased or merged meanwhile is no fault.
            if not faults or commit_log.numbers(self._store) == commits:
                break
        if faults:
            return faults
        try:
            if self._index.agrees_with_log():
                return ()
        except ZooError as error:
            return (Fault(file=error.where, what=error.what),)
        return (Fault(file="index.sqlite", what="disagrees with the log; reindex the zoo"),)

    def reindex(self) -> None:
        """Rebuilds the index from the log.

        Raises:
            ZooError: If the log is damaged.
        """
        self._index.discard()
        self._index.head()

    def compact(self) -> Compaction:
        """Merges small shards, removes needless files and rebuilds the index.

        Needless are shards that were merged, and leftovers of dead writers and interrupted
        erasures.

        Raises:
            ZooError: If the log is damaged, then nothing is removed; or if a shard to be merged is,
                then it and the others stay.
        """

        removed = self._merge()
        self.reindex()
        return removed

    def tidy(self, most: int = compaction.MOST_SMALL) -> None:
        """Does what `compact` does but for the index, if there are more small shards than ``most``.

        Raises:
            ZooError: As with `compact`.
        """
        if self._index.ask(lambda db: compaction.count_small(db, self.manifest)) > most:
            self._merge()

    def copy_to(self, place: Path | str) -> Commit:
        """Copies the zoo to an empty place, or brings an earlier copy up to date.

        Returns:
            The copy's last commit.

        Raises:
            ZooError: If the place has anything else, or this zoo is damaged.
        """
        copy = _store(place)
        commit = replicate(self._store, copy, self._index, self.manifest)
        # Removes files that new tombstones and merges have made needless in the copy.
        with copy.lock(shared=False):
            erasure.sweep(copy, Index(copy, copy.index_folder / "index.sqlite"))
        return commit

    def stats(self) -> ZooStats:
        """The present counts."""
        records, quarantined, sites, rounds, commits = self._index.ask(
            lambda db: db.execute(_STATS).fetchone()
        )
        forgotten = self._index.ask(
            lambda db: db.execute("SELECT DISTINCT site FROM forgotten ORDER BY site").fetchall()
        )
        return ZooStats(
            records=records,
            quarantined=quarantined,
            sites=sites,
            rounds=rounds,
            commits=commits,
            size_bytes=4 * records * (self.manifest.weight_dim + self.manifest.context_dim),
            forgotten=tuple(site for (site,) in forgotten),
        )

    def export(
        self, dest_dir: Path | str, records: Sequence[Record], *, with_context: bool = False
    ) -> tuple[Path, ...]:
        """Writes one safetensors file per record, with the layout's tensors.

        Args:
            dest_dir: The folder, which is created when needed.
            records: Records of this zoo.
            with_context: Whether to add the context as the tensor "f2l.context".

        Returns:
            The files, one per record, in their order.
        """
        view = self.snapshot()
        return tuple(
            export_file.write_file(
                Path(dest_dir),
                self.manifest,
                record,
                view.weights([record])[0],
                view.contexts([record])[0] if with_context else None,
            )
            for record in records
        )

    def import_file(
        self,
        path: Path | str,
        *,
        site: str,
        round: int,
        key: str | None = None,
        parent: str = "",
        context: Floats | None = None,
        metrics: Mapping[str, float] | None = None,
        status: Status = "accepted",
        reason: str = "",
    ) -> Commit:
        """Appends a network from a file with the layout's tensors, as safetensors or a state_dict.

        Args:
            key: The record's key; by default made from round, site and the file's content.
            context: (C,) float32; by default the file's tensor "f2l.context".

        Raises:
            ZooError: If a tensor doesn't fit the layout, or there is no context.
        """
        weights, context, sha256 = import_file.read_with_context(Path(path), self.manifest, context)
        record = NewRecord(
            key=key or f"{round}/{site}/{sha256[:16]}",
            site=site,
            round=round,
            parent=parent,
            weights=weights,
            context=context,
            metrics=metrics or {},
            status=status,
            reason=reason,
        )
        return self.append([record])

    def _merge(self) -> Compaction:
        try:
            with self._store.lock(shared=True):
                self._writer.move(compaction.rows_to_move, check=True)
        finally:
            # Leftovers are removed even if a damaged shard prevented a merge.
            removed = self._sweep()
        return removed

    def _sweep(self) -> Compaction:
        with self._store.lock(shared=False):
            return erasure.finish(self._writer)


def _store(place: Path | str) -> Store:
    if isinstance(place, str) and "://" in place:
        return S3Store(place)
    return LocalStore(Path(place))
