"""Texts as the bytes of their UTF-8, in rows of one length: numbers as all other inputs are.

What a text means to a network is decided by the backbone that takes it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NONE = "\0"
"""The byte that fills a row up, which no text has."""


def normal_text(text: str) -> str:
    """A text in Unicode's composed form (NFC), without blanks at its ends.

    >>> normal_text(" Ba\\u0308ume\\n")
    'Bäume'
    """
    return unicodedata.normalize("NFC", text).replace(_NONE, " ").strip()


def cut_text(text: str, length: int) -> str:
    """The characters of a text whose UTF-8 fits into so many bytes, without blanks at the end.

    >>> cut_text("Bäume", 2), cut_text("Bäume", 6)
    ('B', 'Bäume')
    """
    return text.encode()[:length].decode(errors="ignore").rstrip()


def bytes_of(texts: Sequence[str], length: int) -> NDArray[np.float32]:
    """Texts as rows of bytes.

    Args:
        texts: The texts, without zero bytes; what does not fit is cut.
        length: Bytes of a row.

    Returns:
        (n, length) float32, whole numbers from 0 to 255, zeros after the text.
    """
    rows = b"".join(cut_text(text, length).encode().ljust(length, b"\0") for text in texts)
    return np.frombuffer(rows, np.uint8).reshape(len(texts), length).astype(np.float32)


def texts_of(rows: NDArray[Any]) -> list[str]:
    """The texts of rows of bytes.

    Args:
        rows: (n, length) whole numbers from 0 to 255; others are taken for the nearest.

    >>> texts_of(bytes_of(["Bäume", ""], 8))
    ['Bäume', '']
    """
    whole = np.rint(rows).clip(0, 255).astype(np.uint8)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in whole]
