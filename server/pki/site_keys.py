"""Public keys by which Flower knows sites: parsed, compared as keys, and written in one form."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

_LARGEST_BYTES = 1024


def canonical_key(text: str) -> str | None:
    """The one form of a key: OpenSSH format without a comment; None if Flower can't use it.

    Other texts may stand for the same key, since readers of the format skip stray characters.

    Args:
        text: A public key in OpenSSH format, on the curve P-384.
    """
    key = _parsed(text)
    if key is None:
        return None
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def pem_of(text: str) -> bytes | None:
    """A key as Flower's SuperLink keeps it, PEM; None as in `canonical_key`."""
    key = _parsed(text)
    return (
        None if key is None else key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def is_same_key(one: str, other: str) -> bool:
    """Whether two texts stand for one key."""
    key = canonical_key(one)
    return key is not None and key == canonical_key(other)


def _parsed(text: str) -> ec.EllipticCurvePublicKey | None:
    try:
        fits = len(text) < _LARGEST_BYTES and len(text.split()) == 2 and text == text.strip()
        key = load_ssh_public_key(text.encode()) if fits else None
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    return None
