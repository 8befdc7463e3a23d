"""The quarantine: submissions put aside durably, to be looked at and released or dropped.

A quarantine is a folder beside the zoo::

    shards/<sha256>.safetensors  networks and contexts, in the zoo's shard format
    held/<id>.json               an entry: a submission, the verdict on it, its shard; sealed JSON
    tmp/                         unfinished files
    lock                         shared by writers, held alone by removals

A write makes the shard durable first and then the entry that names it; a removal goes the other
way, so a shard without an entry is left over from a crash and means nothing. The next removal
deletes it. An erasure deletes the shards first: if it dies, the entries tell that it is to be
repeated. The id is made from the content: a submission that is put aside twice has one entry.
Releasing appends to the zoo before it removes the entry, and the zoo takes a key only once, so a
crash in between loses and repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from f2l_fed.admission.verdict import Verdict
from f2l_fed.errors import ZooError
from f2l_fed.quarantine.entry import QuarantineEntry
from f2l_fed.zoo.format import shards
from f2l_fed.zoo.format.sealed_json import canonical, seal, unseal
from f2l_fed.zoo.records import RELEASED, Commit, NewRecord
from f2l_fed.zoo.storage.local import LocalStore
from f2l_fed.zoo.storage.store import Bytes, zoo_errors
from f2l_fed.zoo.zoo import Zoo

_ID_DIGITS, _SHORTEST_PREFIX = 16, 4


class Quarantine:
    """A quarantine in a folder, which is created with the first entry.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._store = LocalStore(root)
        self.root = root

    def put(
        self, records: Sequence[NewRecord], verdict: Verdict, *, lineage: str, time_s: float
    ) -> QuarantineEntry:
        """Puts a submission aside; it is durable on return.

        Args:
            records: The submission as it would enter the zoo: at least one record, all of one
                site and round.
            verdict: The verdict on it.
            lineage: The zoo's lineage.
            time_s: The present time, seconds since the epoch.

        Raises:
            ZooError: If it can't be written.
        """
        first = records[0]
        for folder in ("held", "shards"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        w = [record.weights for record in records]
        c = [record.context for record in records]
        # Under the lock nobody deletes the shard as one that no entry names.
        with self._store.lock(shared=True):
            entry = QuarantineEntry(
                id="",
                site=first.site,
                round=first.round,
                parent=first.parent,
                time_s=time_s,
                verdict=verdict,
                lineage=lineage,
                keys=tuple(record.key for record in records),
                metrics=tuple(dict(record.metrics) for record in records),
                shard=shards.write(self._store, w, c),
                weight_dim=len(w[0]),
                context_dim=len(c[0]),
            )
            entry = replace(entry, id=_id_of(entry))
            if not self._store.put_new(_name(entry.id), seal(entry.to_json()), after="shards"):
                return self.get(entry.id)
            return entry

    def list(self, *, site: str = "") -> tuple[QuarantineEntry, ...]:
        """The entries, oldest first; those of one site if it is named.

        Raises:
            ZooError: If an entry is damaged.
        """
        found = [entry for entry in self._sound().values() if site in ("", entry.site)]
        return tuple(sorted(found, key=lambda entry: (entry.time_s, entry.id)))

    def full_id(self, id: str) -> str:
        """The id of an entry by its first digits; the entry may be damaged.

        Raises:
            ZooError: If there is none, or more than one.
        """
        given = len(id) >= _SHORTEST_PREFIX and id.isalnum()
        matches = [name for name in self._names("held") if given and name.startswith(f"held/{id}")]
        if len(matches) != 1:
            raise ZooError(
                "no such entry in the quarantine" if not matches else "the id is ambiguous",
                where=str(self.root),
                expected=f"an id of those listed, {_SHORTEST_PREFIX} digits or more",
                got=repr(id),
            )
        return Path(matches[0]).stem

    def get(self, id: str) -> QuarantineEntry:
        """An entry by its id, or by the first digits if those are enough.

        Raises:
            ZooError: If there is none, or more than one, or it is damaged.
        """
        name = _name(self.full_id(id))
        return self._parsed(name, self._store.get(name))

    def records(self, entry: QuarantineEntry) -> tuple[NewRecord, ...]:
        """The records of an entry, as they would enter the zoo.

        Raises:
            ZooError: If their file is missing or damaged.
        """
        name = shards.name(entry.shard)
        data = self._store.get(name)
        if hashlib.sha256(data).hexdigest() != entry.shard:
            raise ZooError(
                "the networks are damaged",
                where=self._store.describe(name),
                remedy="Restore this file from a backup, or drop the entry.",
            )
        shard = shards.decode(
            data,
            where=self._store.describe(name),
            weight_dim=entry.weight_dim,
            context_dim=entry.context_dim,
        )
        return tuple(
            NewRecord(
                key=key,
                site=entry.site,
                round=entry.round,
                parent=entry.parent,
                weights=w,
                context=c,
                metrics=metrics,
            )
            for key, metrics, w, c in zip(entry.keys, entry.metrics, shard.w, shard.c, strict=True)
        )

    def release(self, id: str, zoo: Zoo) -> Commit:
        """Moves an entry to the zoo, as accepted; the metrics say that it was released.

        Returns:
            The commit with the records; the zoo's last one if it has them already.

        Raises:
            ZooError: If there is no such entry, it is damaged, or the zoo can't take it.
        """
        with self._alone():
            entry = self.get(id)
            if entry.lineage != zoo.manifest.lineage:
                raise ZooError(
                    "the entry belongs to another lineage",
                    where=f"quarantine {entry.id}",
                    expected=zoo.manifest.lineage,
                    got=entry.lineage,
                )
            commit = zoo.append(
                [
                    replace(record, metrics={**record.metrics, RELEASED: 1.0})
                    for record in self.records(entry)
                ]
            )
            self._remove(_name(entry.id))
        return commit

    def drop(self, id: str) -> None:
        """Removes an entry for good, even a damaged one.

        Raises:
            ZooError: If there is no such entry.
        """
        with self._alone():
            self._remove(_name(self.full_id(id)))

    def forget(self, site: str) -> int:
        """Removes all entries of a site, and leftovers of writers that died.

        Returns:
            The number of entries.

        Raises:
            ZooError: If an entry is damaged, since it may be the site's; then nothing is removed.
        """
        if not self.root.exists():
            return 0
        with self._alone():
            found = self._sound()
            mine = [name for name, entry in found.items() if entry.site == site]
            others = [entry for entry in found.values() if entry.site != site]
            self._store.delete(*self._unnamed(others))
            self._store.delete(*mine)
        return len(mine)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While this is held, no writer is between a shard and its entry."""
        with zoo_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._store.lock(shared=False):
            yield

    def _remove(self, name: str) -> None:
        """Deletes an entry, then its networks and leftovers; the caller holds the lock alone."""
        found, damaged = self._entries()
        entry = found.pop(name, None)
        damaged.pop(name, None)
        self._store.delete(name)
        gone = self._unnamed(found.values())
        if damaged:
            # Any other file may be one that a damaged entry names.
            gone &= {shards.name(entry.shard)} if entry is not None else set()
        self._store.delete(*gone)

    def _unnamed(self, entries: Iterable[QuarantineEntry]) -> set[str]:
        """The shards that none of these entries names, and unfinished files."""
        kept = {shards.name(entry.shard) for entry in entries}
        return {*self._names("shards"), *self._names("tmp")} - kept

    def _sound(self) -> dict[str, QuarantineEntry]:
        """All entries by the names of their files; raises ZooError if one is damaged."""
        found, damaged = self._entries()
        for error in damaged.values():
            raise error
        return found

    def _entries(self) -> tuple[dict[str, QuarantineEntry], dict[str, ZooError]]:
        """All readable entries, and the errors of the others, by the names of their files."""
        found, damaged = {}, {}
        names = [name for name in self._names("held") if name.endswith(".json")]
        for name, data in zip(names, self._store.find_all(names), strict=True):
            # None: another process has dropped or released it since.
            if data is not None:
                try:
                    found[name] = self._parsed(name, data)
                except ZooError as error:
                    damaged[name] = error
        return found, damaged

    def _names(self, folder: str) -> Sequence[str]:
        return self._store.names(folder) if self._store.exists(folder) else ()

    def _parsed(self, name: str, data: Bytes) -> QuarantineEntry:
        where = self._store.describe(name)
        try:
            return QuarantineEntry.from_json(unseal(data, where=where), where=where)
        except ZooError as error:
            drop = f"Or drop it: f2l-admin quarantine drop FOLDER {Path(name).stem} --yes."
            error.remedy = f"{error.remedy} {drop}".lstrip()
            raise


def _name(id: str) -> str:
    return f"held/{id}.json"


def _id_of(entry: QuarantineEntry) -> str:
    # Without the time: the same submission is the same whenever it comes.
    content = {**entry.to_json(), "id": "", "time_s": 0.0}
    return hashlib.sha256(canonical(content)).hexdigest()[:_ID_DIGITS]
