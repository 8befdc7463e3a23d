"""The S3 store: a bucket of S3, or of another object store with its conditional puts.

Endpoint and credentials come from the environment, as for all S3 tools:
``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, and
``AWS_ALLOW_HTTP=true`` for an endpoint without TLS.

An object store has no locks. The log's order rests on ``If-None-Match: *`` alone. The shards of a
dead writer can't be told from those that a living one is about to name, except by age: shards that
no entry names are removed an hour after they were written, and a writer that took half of that for
a draft writes its shards again. The age is the store's own, so no clock has to be right.
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
from f2l_fed.zoo.storage.store import Bytes, Name, missing_file, resolve_name

ABANDONED_AFTER_S = 3600
_PARALLEL = 16
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_MAX_PUTS = 5


class S3Store:
    """A store at a prefix of a bucket.

    Args:
        url: ``s3://bucket/prefix``.

    Raises:
        UsageError: If the URL is invalid, or the package obstore isn't installed.
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
                # Without a part that may be a password.
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
        self._exists_error, self._error = AlreadyExistsError, BaseError
        with self._zoo_errors(""):
            self._bucket: Any = self._api.store.S3Store.from_url(self.url, retry_config=_RETRIES)
        self.index_folder = _cache_folder(self.url)

    def prepare(self) -> None:
        """Does nothing: folders are parts of names."""

    def put_new(self, name: Name, data: Bytes, *, after: str = "", lasting: bool = True) -> bool:  # noqa: ARG002
        name = resolve_name(name)
        # An existing shard may soon count as abandoned; written again it is young.
        mode = "overwrite" if name.startswith("shards/") else "create"
        with self._zoo_errors(name):
            for _ in range(_MAX_PUTS):
                try:
                    self._api.put(self._bucket, name, data, mode=mode, use_multipart=False)
                    return True
                except self._exists_error:
                    # Two conditional puts at once may both be refused.
                    if self.exists(name):
                        return False
        raise ZooError(
            "the object store refused a conditional put of a free name",
            where=self.describe(name),
            got=f"{_MAX_PUTS} refusals",
            remedy="Use a store with If-None-Match, and check that nothing else writes this name.",
        )

    def get(self, name: str) -> memoryview:
        with self._zoo_errors(name):
            return memoryview(self._api.get(self._bucket, name).bytes())

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        if not ranges:
            return []
        with self._zoo_errors(name):
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
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(self._find, names))

    def names(self, folder: str) -> list[str]:
        return sorted(meta["path"] for meta in self._metas(folder))

    def delete(self, *names: str) -> int:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return sum(pool.map(self._delete, names))

    def settle(self, folder: str) -> None:
        """Does nothing: every visible name is durable."""

    def exists(self, name: str) -> bool:
        with self._zoo_errors(name):
            try:
                self._api.head(self._bucket, name)
            except FileNotFoundError:
                return False
        return True

    def size_bytes(self, name: str) -> int:
        with self._zoo_errors(name):
            return int(self._api.head(self._bucket, name)["size"])

    def lock(self, *, shared: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def abandoned(self) -> list[str]:
        limit = self._now() - timedelta(seconds=ABANDONED_AFTER_S)
        return sorted(m["path"] for m in self._metas("shards") if m["last_modified"] < limit)

    def describe(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _find(self, name: str) -> bytes | None:
        with self._zoo_errors(name):
            try:
                return bytes(self._api.get(self._bucket, name).bytes())
            except FileNotFoundError:
                return None

    def _delete(self, name: str) -> int:
        with self._zoo_errors(name):
            try:
                size_bytes = int(self._api.head(self._bucket, name)["size"])
                self._api.delete(self._bucket, name)
            except FileNotFoundError:
                return 0
        return size_bytes

    def _metas(self, folder: str) -> list[dict[str, Any]]:
        with self._zoo_errors(folder):
            return [m for part in self._api.list(self._bucket, prefix=folder) for m in part]

    def _now(self) -> datetime:
        name = f"tmp/{uuid.uuid4().hex}"
        with self._zoo_errors(name):
            self._api.put(self._bucket, name, b"clock", use_multipart=False)
            now: datetime = self._api.head(self._bucket, name)["last_modified"]
            self._api.delete(self._bucket, name)
        return now

    @contextmanager
    def _zoo_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file(self.describe(name)) from error
        except (self._error, ValueError, OSError) as error:
            raise ZooError(
                "the request to the object store failed",
                where=self.describe(name),
                got=str(error).split("\n")[0][:300],
                remedy="Check bucket, endpoint and credentials (AWS_… in the environment).",
                transient=True,
            ) from error


def _cache_folder(url: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {url}"
    folder = Path(base).expanduser() / "f2l-fed" / f"zoo-{sha256(place.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
