"""What admission put aside: durable, to be looked at, and released or dropped by a person.

A quarantine is a folder beside the zoo::

    shards/<sha256>.safetensors  networks and contexts, in the zoo's shard format
    held/<id>.json               one submission: whose, why, and which shard; sealed JSON

A write makes the shard durable first and then the entry that names it; a removal goes the other
way, so a shard without an entry is the rest of a crash and means nothing. The id is made from the
content: a submission that is put aside twice is held once. Releasing appends to the zoo before it
removes the entry, and the zoo takes a key only once, so a crash in between loses and repeats
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from f2l_fed.admission.seed import RELEASED
from f2l_fed.admission.verdict import Verdict
from f2l_fed.errors import ZooError
from f2l_fed.zoo import Commit, LocalStore, NewRecord, Zoo, shards
from f2l_fed.zoo.sealed import canonical, seal, unseal

_ID, _SHORTEST = 16, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A submission in quarantine.

    Args:
        id: 16 hexadecimal digits.
        site: Whose it is.
        round: Round in which it came.
        parent: The release that made its starts, or "".
        time_s: When it was put aside, seconds since the epoch.
        verdict: Why.
        lineage: Of the zoo it may be released to.
        keys: The records' keys, in the order of the shard's rows.
        metrics: Their metrics.
        shard: sha256 of the shard.
        weight_dim: D.
        context_dim: C.
    """

    id: str
    site: str
    round: int
    parent: str
    time_s: float
    verdict: Verdict
    lineage: str
    keys: tuple[str, ...]
    metrics: tuple[Mapping[str, float], ...]
    shard: str
    weight_dim: int
    context_dim: int

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "id": self.id,
            "site": self.site,
            "round": self.round,
            "parent": self.parent,
            "time_s": self.time_s,
            "verdict": self.verdict.to_json(),
            "lineage": self.lineage,
            "keys": list(self.keys),
            "metrics": [dict(some) for some in self.metrics],
            "shard": self.shard,
            "weight_dim": self.weight_dim,
            "context_dim": self.context_dim,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Held:
        """Raises ZooError if it isn't what `to_json` wrote."""
        try:
            return cls(
                **{
                    **value,
                    "verdict": Verdict.from_json(value["verdict"]),
                    "keys": tuple(value["keys"]),
                    "metrics": tuple(value["metrics"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ZooError("not an entry of a quarantine", where=where, got=str(error)) from error


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
    ) -> Held:
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
        held = Held(
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

    def list(self, *, site: str = "") -> tuple[Held, ...]:
        """What is held, oldest first; of one site if it is named.

        Raises:
            ZooError: If an entry is damaged.
        """
        if not self._store.exists("held"):
            return ()
        found = [self._read(name) for name in self._store.names("held") if name.endswith(".json")]
        wanted = [held for held in found if site in ("", held.site)]
        return tuple(sorted(wanted, key=lambda held: (held.time_s, held.id)))

    def get(self, id: str) -> Held:
        """One submission by its id, or by the first digits if those are enough.

        Raises:
            ZooError: If there is none, or more than one.
        """
        names = self._store.names("held") if self._store.exists("held") else []
        given = len(id) >= _SHORTEST and id.isalnum()
        matches = [name for name in names if given and name.startswith(f"held/{id}")]
        if len(matches) != 1:
            raise ZooError(
                "no such submission in quarantine" if not matches else "the id is ambiguous",
                where=str(self.root),
                expected=f"an id of those listed, {_SHORTEST} digits or more",
                got=repr(id),
            )
        return self._read(matches[0])

    def records(self, held: Held) -> tuple[NewRecord, ...]:
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
        self.drop(held.id)
        return commit

    def drop(self, id: str) -> Held:
        """Removes a submission for good.

        Raises:
            ZooError: If there is no such submission.
        """
        held = self.get(id)
        self._store.delete(_name(held.id))
        if all(other.shard != held.shard for other in self.list()):
            self._store.delete(shards.name(held.shard))
        return held

    def forget(self, site: str) -> int:
        """Removes all of a site, as its erasure from the zoo does there; how many there were."""
        mine = self.list(site=site)
        for held in mine:
            self.drop(held.id)
        return len(mine)

    def _read(self, name: str) -> Held:
        where = self._store.describe(name)
        return Held.from_json(unseal(self._store.get(name), where=where), where=where)


def _name(id: str) -> str:
    return f"held/{id}.json"


def _id_of(held: Held) -> str:
    # Without the time: the same submission is the same whenever it comes.
    content = {**held.to_json(), "id": "", "time_s": 0.0}
    return hashlib.sha256(canonical(content)).hexdigest()[:_ID]
