"""The weight zoo: every network that sites returned, kept for good and erasable by site.

A zoo is a folder, or a prefix in an object store (`f2l_fed.zoo.storage.s3`). The log is the truth,
the shards hold the numbers, the index is a view::

    zoo.json                    the manifest; created exclusively
    log/<20 digits>.json        commits, numbered from 1 without gaps; created exclusively
    shards/<sha256>.safetensors rows of one or more sites, named after the file's own content
    index.sqlite                derived from the log; may be deleted at any time
    lock, index.lock, tmp/      locks and unfinished writes; no content

Format 1
--------
Both kinds of JSON are canonical (sorted keys, no spaces, ASCII) and sealed: ``digest`` is the
sha256 of the same object without it.

``zoo.json`` has ``format``, ``lineage``, ``layout_digest``, ``layout``, ``context_dim``.

A log entry has ``format``, ``commit`` (its number), ``previous`` (sha256 of the previous entry's
bytes, 64 zeros for the first), ``kind`` and ``shards``. ``kind`` is ``append``, or ``forget`` with
the ``site`` whose earlier rows are void from then on and with no shards. A shard is
``{sha256, site, rows}``; its rows, in file order, are ``{key, round, parent, metrics, status,
reason, crc32}``, where ``crc32`` holds the checksums of the weights' and of the context's bytes.

A shard is a safetensors file of two float32 matrices, first ``w`` (rows, D), then ``c`` (rows, C),
with the metadata ``{"f2l_zoo": "1"}`` alone, so that equal content has an equal name. Its header
is sorted JSON without spaces, padded with spaces to a multiple of 8 bytes.

A write first makes the shard durable and then the log entry that names it, both through a
temporary file, fsync, an exclusive hard link and fsync of the folder; in an object store through
one put, of the log entry on condition that its name is free. A shard that no entry names
was left by a writer that died and means nothing. Erasure goes the other way: first the tombstone,
then the rows of other sites in the same files, then the files; ``Zoo.open`` finishes an
interrupted one. The log keeps the name of an erased site and the entries' own fields (keys,
metrics), never a row.

Format 2
--------
A log entry of ``kind`` ``merge`` has ``format`` 2 and is otherwise sealed and chained like the
others. Its ``shards`` are ``{sha256, site, rows}`` with the keys of records in file order: from
then on the records of that site with those keys, which earlier entries appended and no tombstone
covers, lie there and no longer in the shards that named them. Nothing else of them changes. A
shard whose rows have all moved is deleted when the entry is durable, and not missed.

Format 3
--------
A log entry of which a shard has rows of several sites has ``format`` 3. Such a shard has no
``site``; each of its rows has one beside its other fields, and those of a merge are ``{site, key}``
instead of keys. Where a site is forgotten, a merge moves the other rows of its shards elsewhere
before these are deleted; a row that the log has a checksum of may be damaged then, and stays so.
All else stays as it was, so that older programs read a zoo of whose sites none share a file.

Rule for changes: anything that format 1 does not say gets the next number in ``format`` and in the
shards' metadata, a reader for both and new golden files; old golden files stay and stay readable.
"""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = [
    "Commit",
    "Compaction",
    "Fault",
    "LocalStore",
    "Manifest",
    "NewRecord",
    "Position",
    "Query",
    "Reader",
    "Record",
    "RecordBatch",
    "Snapshot",
    "Store",
    "Zoo",
    "ZooStats",
]

if TYPE_CHECKING:
    from f2l_fed.zoo.format.manifest import Manifest
    from f2l_fed.zoo.reading.query import Query
    from f2l_fed.zoo.reading.reader import Position, Reader, RecordBatch
    from f2l_fed.zoo.reading.snapshot import Snapshot
    from f2l_fed.zoo.records import Commit, Compaction, Fault, NewRecord, Record, ZooStats
    from f2l_fed.zoo.storage.local import LocalStore
    from f2l_fed.zoo.storage.store import Store
    from f2l_fed.zoo.zoo import Zoo
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.zoo.format.manifest": ["Manifest"],
            "f2l_fed.zoo.reading.query": ["Query"],
            "f2l_fed.zoo.reading.reader": ["Position", "Reader", "RecordBatch"],
            "f2l_fed.zoo.reading.snapshot": ["Snapshot"],
            "f2l_fed.zoo.records": [
                "Commit",
                "Compaction",
                "Fault",
                "NewRecord",
                "Record",
                "ZooStats",
            ],
            "f2l_fed.zoo.storage.local": ["LocalStore"],
            "f2l_fed.zoo.storage.store": ["Store"],
            "f2l_fed.zoo.zoo": ["Zoo"],
        },
    )
