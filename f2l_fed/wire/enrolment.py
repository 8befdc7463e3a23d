"""TODO."""

from __future__ import annotations

import hashlib
import json

KIT_FORMAT = 2


def fingerprint_of(kit: dict[str, object]) -> str:
    """SHA-256 of a kit's other entries, in hexadecimal; people compare its first digits."""
    plain = {name: value for name, value in kit.items() if name != "fingerprint"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def renewal_text(name: str, key: str, request: bytes, time: str) -> bytes:
    """What a site signs to renew."""
    return json.dumps(["renew", name, key, request.decode("ascii", "replace"), time]).encode()


CLOCKS_MAY_DIFFER_S = 300
"""Between a site and the server, either way."""
