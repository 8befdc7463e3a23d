"""A zoo in an S3 bucket, or in another object store that speaks S3 with conditional puts.

Where the bucket is and who may use it comes from the environment, as for all S3 tools:
``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, and
``AWS_ALLOW_HTTP=true`` for an endpoint without TLS.

An object store has no locks. The log's order rests on ``If-None-Match: *`` alone. What a dead
writer left can't be told from what a living one is about to name, except by age: shards that no
entry names are removed an hour after they were written, and a writer that took half of that for a
draft writes its shards again. The age is the store's own, so no clock has to be right.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo.storage.store import Bytes, Name, missing_file, named

ABANDONED_AFTER_S = 3600
_AT_ONCE = 16
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_PUTS = 5


class S3Store:
    """A prefix of a bucket.

    Args:
        url: ``s3://bucket/prefix``.

    Raises:
        UsageError: If it isn't such a URL, or the package obstore isn't there.
    """

    mapped = False
    patience_s = ABANDONED_AFTER_S / 2

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if (
            parts.scheme != "s3"
            or not parts.netloc
            or "@" in parts.netloc
            or parts.query
            or parts.fragment
        ):
            raise UsageError(
                "not the address of a zoo",
                # Less what may be a password.
                where=url.rpartition("@")[2],
                expected="a folder or s3://bucket/prefix",
                remedy="Endpoint and credentials go into the environment (AWS_…).",
            )
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError
        except ImportError as error:
            raise UsageError(
                "the package for object stores is not installed",
                where=url,
                remedy="Install f2l-fed with the extra s3.",
            ) from error
        self._api: Any = obstore
        self._taken, self._error = AlreadyExistsError, BaseError
        with self._explained(""):
            self._bucket: Any = self._api.store.S3Store.from_url(self.url, retry_config=_RETRIES)
        self.index_folder = _cache_folder(self.url)

    def prepare(self) -> None:
        """Nothing to do: folders are parts of names."""

    def put_new(self, name: Name, data: Bytes, *, after: str = "", lasting: bool = True) -> bool:  # noqa: ARG002
        name = named(name)
        # A shard that is there may be about to be taken for abandoned; written again it is young.
        mode = "overwrite" if name.startswith("shards/") else "create"
        with self._explained(name):
            for _ in range(_PUTS):
                try:
                    self._api.put(self._bucket, name, data, mode=mode, use_multipart=False)
                    return True
                except self._taken:
                    # Two conditional puts at once may both be refused.
                    if self.exists(name):
                        return False
        raise ZooError(
            "the object store refused a conditional put of a free name",
            where=self.describe(name),
            got=f"{_PUTS} refusals",
            remedy="Use a store with If-None-Match, and see whether others write to this name.",
        )

    def get(self, name: str) -> memoryview:
        with self._explained(name):
            return memoryview(self._api.get(self._bucket, name).bytes())

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        if not ranges:
            return []
        with self._explained(name):
            found = self._api.get_ranges(
                self._bucket,
                name,
                starts=[start for start, _ in ranges],
                ends=[stop for _, stop in ranges],
            )
        return [memoryview(part) for part in found]

    def find_all(self, names: Sequence[str]) -> list[Bytes | None]:
        if len(names) == 1:
            return [self._find(names[0])]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._find, names))

    def names(self, folder: str) -> list[str]:
        return sorted(meta["path"] for meta in self._metas(folder))

    def delete(self, *names: str) -> int:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return sum(pool.map(self._delete, names))

    def settle(self, folder: str) -> None:
        """Nothing to do: what can be seen is durable."""

    def exists(self, name: str) -> bool:
        with self._explained(name):
            try:
                self._api.head(self._bucket, name)
            except FileNotFoundError:
                return False
        return True

    def size_bytes(self, name: str) -> int:
        with self._explained(name):
            return int(self._api.head(self._bucket, name)["size"])

    def lock(self, *, shared: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def abandoned(self) -> list[str]:
        limit = self._now() - timedelta(seconds=ABANDONED_AFTER_S)
        return sorted(m["path"] for m in self._metas("shards") if m["last_modified"] < limit)

    def describe(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _find(self, name: str) -> bytes | None:
        with self._explained(name):
            try:
                return bytes(self._api.get(self._bucket, name).bytes())
            except FileNotFoundError:
                return None

    def _delete(self, name: str) -> int:
        with self._explained(name):
            try:
                size_bytes = int(self._api.head(self._bucket, name)["size"])
                self._api.delete(self._bucket, name)
            except FileNotFoundError:
                return 0
        return size_bytes

    def _metas(self, folder: str) -> list[dict[str, Any]]:
        with self._explained(folder):
            return [m for part in self._api.list(self._bucket, prefix=folder) for m in part]

    def _now(self) -> datetime:
        name = f"tmp/{uuid.uuid4().hex}"
        with self._explained(name):
            self._api.put(self._bucket, name, b"clock", use_multipart=False)
            now: datetime = self._api.head(self._bucket, name)["last_modified"]
            self._api.delete(self._bucket, name)
        return now

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file(self.describe(name)) from error
        except (self._error, ValueError, OSError) as error:
            raise ZooError(
                "the object store refused",
                where=self.describe(name),
                got=str(error).split("\n")[0][:300],
                remedy="Check bucket, endpoint and credentials (AWS_… in the environment).",
                transient=True,
            ) from error


def _cache_folder(url: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {url}"
    folder = Path(base).expanduser() / "f2l-fed" / f"zoo-{sha256(place.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
