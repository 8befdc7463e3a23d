"""What admission put aside: durable, to be looked at, and released or dropped by a person.

A quarantine is a folder beside the zoo::

    shards/<sha256>.safetensors  networks and contexts, in the zoo's shard format
    held/<id>.json               one submission: whose, why, and which shard; sealed JSON
    tmp/                         unfinished files
    lock                         shared by writers, held alone by who removes

A write makes the shard durable first and then the entry that names it; a removal goes the other
way, so a shard without an entry is the rest of a crash and means nothing. The next removal deletes
it. An erasure deletes the shards first: if it dies, the entries tell that it is to be repeated. The
id is made from the content: a submission that is put aside twice is held once. Releasing appends to
the zoo before it removes the entry, and the zoo takes a key only once, so a crash in between loses
and repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from f2l_fed.admission.verdict import Verdict
from f2l_fed.admission.zoo_records import RELEASED
from f2l_fed.errors import ZooError
from f2l_fed.quarantine.entry import QuarantineEntry
from f2l_fed.zoo import Commit, LocalStore, NewRecord, Zoo
from f2l_fed.zoo.format import shards
from f2l_fed.zoo.format.sealed_json import canonical, seal, unseal
from f2l_fed.zoo.storage.store import Bytes, explained

_ID, _SHORTEST = 16, 4


class Quarantine:
    """A quarantine in a folder; it is created when something is first put aside.

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
            records: Of one site and round, at least one; as they would enter the zoo.
            verdict: Why.
            lineage: The zoo's.
            time_s: Now.

        Raises:
            ZooError: If it can't be written.
        """
        first = records[0]
        for folder in ("held", "shards"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        w = [record.weights for record in records]
        c = [record.context for record in records]
        # Nobody deletes the shard as one that no entry names, until one does.
        with self._store.lock(shared=True):
            held = QuarantineEntry(
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
            held = replace(held, id=_id_of(held))
            if not self._store.put_new(_name(held.id), seal(held.to_json()), after="shards"):
                return self.get(held.id)
            return held

    def list(self, *, site: str = "") -> tuple[QuarantineEntry, ...]:
        """What is held, oldest first; of one site if it is named.

        Raises:
            ZooError: If an entry is damaged.
        """
        wanted = [held for held in self._sound().values() if site in ("", held.site)]
        return tuple(sorted(wanted, key=lambda held: (held.time_s, held.id)))

    def full_id(self, id: str) -> str:
        """The id of a submission by its first digits; its entry may be damaged.

        Raises:
            ZooError: If there is none, or more than one.
        """
        given = len(id) >= _SHORTEST and id.isalnum()
        matches = [name for name in self._names("held") if given and name.startswith(f"held/{id}")]
        if len(matches) != 1:
            raise ZooError(
                "no such submission in quarantine" if not matches else "the id is ambiguous",
                where=str(self.root),
                expected=f"an id of those listed, {_SHORTEST} digits or more",
                got=repr(id),
            )
        return Path(matches[0]).stem

    def get(self, id: str) -> QuarantineEntry:
        """One submission by its id, or by the first digits if those are enough.

        Raises:
            ZooError: If there is none, or more than one, or its entry is damaged.
        """
        name = _name(self.full_id(id))
        return self._parsed(name, self._store.get(name))

    def records(self, held: QuarantineEntry) -> tuple[NewRecord, ...]:
        """The networks of a submission, as they would enter the zoo.

        Raises:
            ZooError: If their file is missing or damaged.
        """
        name = shards.name(held.shard)
        data = self._store.get(name)
        if hashlib.sha256(data).hexdigest() != held.shard:
            raise ZooError(
                "the networks are damaged",
                where=self._store.describe(name),
                remedy="Restore this file from a backup, or drop the submission.",
            )
        shard = shards.decode(
            data,
            where=self._store.describe(name),
            weight_dim=held.weight_dim,
            context_dim=held.context_dim,
        )
        return tuple(
            NewRecord(
                key=key,
                site=held.site,
                round=held.round,
                parent=held.parent,
                weights=w,
                context=c,
                metrics=metrics,
            )
            for key, metrics, w, c in zip(held.keys, held.metrics, shard.w, shard.c, strict=True)
        )

    def release(self, id: str, zoo: Zoo) -> Commit:
        """Moves a submission to the zoo, as accepted; its metrics say that it was released.

        Returns:
            The commit that brought it; the zoo's last one if it knew the records already.

        Raises:
            ZooError: If there is no such submission, it is damaged, or the zoo can't take it.
        """
        with self._alone():
            held = self.get(id)
            if held.lineage != zoo.manifest.lineage:
                raise ZooError(
                    "the submission belongs to another lineage",
                    where=f"quarantine {held.id}",
                    expected=zoo.manifest.lineage,
                    got=held.lineage,
                )
            commit = zoo.append(
                [
                    replace(record, metrics={**record.metrics, RELEASED: 1.0})
                    for record in self.records(held)
                ]
            )
            self._remove(_name(held.id))
        return commit

    def drop(self, id: str) -> None:
        """Removes a submission for good, also one whose entry is damaged.

        Raises:
            ZooError: If there is no such submission.
        """
        with self._alone():
            self._remove(_name(self.full_id(id)))

    def forget(self, site: str) -> int:
        """Removes all of a site, and what writers left that died; how many submissions there were.

        Raises:
            ZooError: If an entry is damaged, which may be the site's; then nothing is removed.
        """
        if not self.root.exists():
            return 0
        with self._alone():
            found = self._sound()
            mine = [name for name, held in found.items() if held.site == site]
            others = [held for held in found.values() if held.site != site]
            self._store.delete(*self._unnamed(others))
            self._store.delete(*mine)
        return len(mine)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While this is held, no writer is between a shard and its entry."""
        with explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._store.lock(shared=False):
            yield

    def _remove(self, name: str) -> None:
        """Deletes an entry, then its networks and leftovers; the caller holds the lock alone."""
        found, damaged = self._entries()
        held = found.pop(name, None)
        damaged.pop(name, None)
        self._store.delete(name)
        gone = self._unnamed(found.values())
        if damaged:
            # Any other file may be what one of these names.
            gone &= {shards.name(held.shard)} if held is not None else set()
        self._store.delete(*gone)

    def _unnamed(self, entries: Iterable[QuarantineEntry]) -> set[str]:
        """Shards that none of these entries names, and unfinished files."""
        kept = {shards.name(held.shard) for held in entries}
        return {*self._names("shards"), *self._names("tmp")} - kept

    def _sound(self) -> dict[str, QuarantineEntry]:
        """All entries by the names of their files; raises ZooError if one is damaged."""
        found, damaged = self._entries()
        for error in damaged.values():
            raise error
        return found

    def _entries(self) -> tuple[dict[str, QuarantineEntry], dict[str, ZooError]]:
        """All entries that can be read, and what is wrong with the others."""
        found, damaged = {}, {}
        names = [name for name in self._names("held") if name.endswith(".json")]
        for name, data in zip(names, self._store.find_all(names), strict=True):
            # Another process may have dropped or released it since.
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


def _id_of(held: QuarantineEntry) -> str:
    # Without the time: the same submission is the same whenever it comes.
    content = {**held.to_json(), "id": "", "time_s": 0.0}
    return hashlib.sha256(canonical(content)).hexdigest()[:_ID]
