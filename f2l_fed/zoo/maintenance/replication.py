"""Replication of a zoo: a second one of the same bytes, as a backup or in another store."""

from __future__ import annotations

import hashlib
import time

from f2l_fed.errors import ZooError
from f2l_fed.zoo import index
from f2l_fed.zoo.format import commit_log, manifest, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.maintenance.erasure import remaining_rows
from f2l_fed.zoo.records import GENESIS, Commit
from f2l_fed.zoo.storage.store import Store

_ATTEMPTS = 100
_PAUSE_S = 0.1


def replicate(source: Store, target: Store, view: Index, about: Manifest) -> Commit:
    """Brings ``target`` up to date with ``source``, commit by commit.

    An erasure that is under way is waited for: if the copy finished it, it would have a commit of
    its own.

    Rows that were erased are not copied; their tombstones are. Rows that were merged are copied
    with the merge: a copy that is interrupted before it lacks them, all others are there.

    Args:
        source: The store of the zoo.
        target: The store of the copy.
        view: The index of the source.
        about: The manifest of the source.

    Returns:
        The last commit.

    Raises:
        ZooError: If the source is damaged or stays in the middle of an erasure, or the target is
            anything but an older copy of it.
    """
    for left in reversed(range(_ATTEMPTS)):
        until, unfinished = view.ask(
            lambda db: (index.head(db).number, bool(remaining_rows(db, about)))
        )
        if unfinished:
            time.sleep(_PAUSE_S)
            continue
        try:
            return _replicate(source, target, until)
        except ZooError:
            # Rows of a file that is gone may have been merged or erased meanwhile.
            if not left or _last(source) == until:
                raise
    raise ZooError(
        "an erasure is under way",
        where=source.describe("log"),
        remedy="Open the zoo and copy again; if that is not enough, verify the zoo to see why.",
    )


def _last(store: Store) -> int:
    return max(commit_log.numbers(store), default=0)


def _replicate(source: Store, target: Store, until: int) -> Commit:
    target.prepare()
    (about,) = source.find_all([manifest.NAME])
    if about is None:
        raise ZooError("not a zoo", where=source.describe(manifest.NAME))
    if not target.put_new(manifest.NAME, about) and target.find_all([manifest.NAME]) != [about]:
        raise _another(target, manifest.NAME)
    # A shard of a later merge has to come with its entry.
    in_use = commit_log.shards_in_use(source, until)
    # Who opens the copy between a tombstone and its merge waits for the merge.
    with target.lock(shared=True):
        head = _common(source, target)
        for commit, entry in commit_log.entries(source, after=head):
            if commit.number > until:
                break
            for sha256 in entry.shard_names:
                if sha256 in in_use:
                    _copy_shard(source, target, sha256)
            if commit_log.publish(target, entry) is None:
                raise _another(target, commit_log.name(commit.number))
            head = commit
    return head


def _common(source: Store, target: Store) -> Commit:
    """The last commit of the target, which must be the source's too."""
    number = _last(target)
    if number == 0:
        return GENESIS
    file = commit_log.name(number)
    if source.find_all([file]) != target.find_all([file]):
        raise _another(target, file)
    return commit_log.read(source, number)[0]


def _copy_shard(source: Store, target: Store, sha256: str) -> None:
    file = shards.name(sha256)
    data = source.get(file)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ZooError(
            "the shard is damaged",
            where=source.describe(file),
            remedy="Restore this file from a backup; verify the zoo to see what else is wrong.",
        )
    target.put_new(file, data, lasting=False)


def _another(target: Store, file: str) -> ZooError:
    return ZooError(
        "the place has another zoo, or a copy with commits of its own",
        where=target.describe(file),
        remedy="Choose an empty place.",
    )
