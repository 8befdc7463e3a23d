"""A peer that hands out kits of its own making: whole in themselves, with fields as it likes.

How to write the next one: take `made_up` with the fields that the attack changes; `sealed` gives
any fields the fingerprint that belongs to them, so that a kit is not refused as altered. Keys are
those of format 2; a kit is written as JSON.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any


def sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields with their fingerprint."""
    plain = {name: value for name, value in fields.items() if name != "fingerprint"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return {**plain, "fingerprint": digest}


def made_up(authority: str, expires: datetime, /, **changes: Any) -> dict[str, Any]:
    """A kit of an authority, PEM, with some other fields."""
    fields = {
        "format": 2,
        "site": "north",
        "server": "localhost:1",
        "authority": authority,
        "token": "A" * 43,
        "expires": expires.isoformat(timespec="seconds"),
    }
    return sealed({**fields, **changes})
