"""Erasure: the files go after the tombstone, and go even if the first attempt died."""

from __future__ import annotations

from f2l_fed.zoo import log, shards
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.store import Store

_VOID = "SELECT DISTINCT shard FROM records EXCEPT SELECT shard FROM live"


def resume(store: Store, index: Index) -> None:
    """Finishes an erasure whose tombstone is there but whose files are too.

    Raises:
        ZooError: If the log is damaged or the files can't be deleted.
    """
    if any(store.exists(name) for name in _void(index)):
        with store.lock(alone=True):
            sweep(store, index)


def sweep(store: Store, index: Index) -> None:
    """Deletes every row that the log doesn't vouch for; the caller holds the lock alone.

    What dead writers left goes too, as it may hold rows of a forgotten site.

    Raises:
        ZooError: If the log is damaged (then nothing is deleted) or a file can't be deleted.
    """
    void = _void(index)
    # From the log, not from the index: what is deleted here can't be had back.
    keep = {shards.name(sha256) for sha256 in log.shards_in_use(store)}
    strays = set(store.list("shards")) - keep - void
    # Void shards go last: they are what `resume` knows unfinished work by.
    for name in (*store.list("tmp"), *sorted(strays), *sorted(void - keep)):
        store.delete(name)


def _void(index: Index) -> set[str]:
    rows = index.ask(lambda db: db.execute(_VOID).fetchall())
    return {shards.name(sha256) for (sha256,) in rows}
