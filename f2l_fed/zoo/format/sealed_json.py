"""Sealed JSON: one spelling for each value, and a digest that shows any change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from f2l_fed.errors import ZooError
from f2l_fed.zoo.storage.store import Bytes

FORMAT = 1
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII, finite numbers.

    >>> canonical({"b": 0.5, "a": ["ü"]})
    b'{"a":["\\\\u00fc"],"b":0.5}'
    """
    return _ENCODER.encode(value).encode("ascii")


def seal(body: Mapping[str, Any], *, format: int = FORMAT) -> bytes:
    """Adds ``format`` and ``digest`` to an object and spells it canonically.

    >>> unseal(seal({"a": 1}), where="here")["a"]
    1
    """
    stamped = {**body, "format": format}
    spelled = {name: canonical(value) for name, value in stamped.items()}
    digest = hashlib.sha256(_object(spelled)).hexdigest()
    return _object({**spelled, "digest": canonical(digest)})


def unseal(
    data: Bytes, *, where: str, formats: Collection[int] = frozenset({FORMAT})
) -> dict[str, Any]:
    """Reads an object that `seal` wrote.

    Args:
        data: The bytes of the file.
        where: The file, for the message.
        formats: The formats that the caller can read.

    Raises:
        ZooError: If the format is unknown or any byte has changed.
    """
    known = " or ".join(map(str, sorted(formats)))
    damaged = ZooError(
        "the file is damaged",
        where=where,
        expected=f"sealed JSON of format {known}",
        got=f"{len(data)} bytes that are not",
        remedy="Restore this file from a backup.",
    )
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        if not data:
            damaged.what = "the file is empty"
        elif bytes(data[-1:]) != b"}":
            damaged.what = "the file is truncated"
        raise damaged from error
    if not isinstance(value, dict):
        raise damaged
    if value.get("format", FORMAT) not in formats:
        raise ZooError(
            "unknown format version of the zoo",
            where=where,
            expected=f"format {known}",
            got=f"format {value['format']}",
            remedy="Use the version of this program that wrote it, or a newer one.",
        )
    # Spelling a long entry again would cost more than the rest of reading it.
    seal_bytes = b'"digest":%b,' % canonical(value.get("digest"))
    rest = bytes(data).replace(seal_bytes, b"", 1)
    if len(rest) == len(data) or hashlib.sha256(rest).hexdigest() != value.get("digest"):
        raise damaged
    return {name: item for name, item in value.items() if name not in ("digest", "format")}


def _object(spelled: Mapping[str, bytes]) -> bytes:
    """An object from spelled items; names are ASCII without quotes."""
    return b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), spelled[n]) for n in sorted(spelled))
