"""Marks: values that must not leave a place, and the search for them in any bytes.

A text is looked for in UTF-8 and UTF-16, in both cases, as hexadecimal digits and as base64; rows
of numbers as floats of every size, as bytes and as decimal digits, two neighbours at a time. All of
it also inside whatever the bytes hold compressed or as base64.
"""

from __future__ import annotations

import base64
import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_DEPTH = 3
_WINDOW = 8
"""Bytes that are compared at a time; fewer would be met by chance."""

_NUMBER = re.compile(rb"-?\d+\.\d{4,}(?:e-?\d+)?")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{48,}")


class Marks:
    """Some marks of one place.

    Args:
        texts: What each text is to its value; bytes stand for a secret that is no text.
        rows: What each matrix is to its (n, width) float32 values, at least eight of them distinct
            in a row.
    """

    def __init__(self, texts: Mapping[str, str | bytes], rows: Mapping[str, np.ndarray]) -> None:
        self._texts = {what: _text_forms(value) for what, value in texts.items()}
        self._rows = {what: _RowForms(values) for what, values in rows.items()}

    def found(self, data: bytes) -> set[str]:
        """Those that are somewhere in these bytes."""
        found: set[str] = set()
        for piece in unfolded(data):
            found |= {w for w, forms in self._texts.items() if any(f in piece for f in forms)}
            found |= {what for what, forms in self._rows.items() if forms.within(piece)}
        return found

    def found_below(self, folder: Path) -> dict[str, set[str]]:
        """Those in the files of a folder and in their names, by path."""
        found = {}
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            data = path.read_bytes() if path.is_file() else b""
            if marks := self.found(name.encode() + b"\n" + data):
                found[name] = marks
        return found


def _text_forms(text: str | bytes) -> set[bytes]:
    if isinstance(text, bytes):
        return _byte_forms(text)
    cases, encodings = (text, text.lower(), text.upper()), ("utf-8", "utf-16-le", "utf-16-be")
    return set().union(*(_byte_forms(case.encode(code)) for case in cases for code in encodings))


def _byte_forms(raw: bytes) -> set[bytes]:
    forms = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        # The characters at both ends also depend on what stands before and after.
        coded = base64.b64encode(b"\0" * shift + raw)
        whole = coded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        forms |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


class _RowForms:
    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows.astype(np.float32)

    @cached_property
    def _windows(self) -> np.ndarray:
        rows = self._rows
        tops = (rows.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16
        forms = [rows, rows.astype(np.float16), tops]
        if rows.min() >= 0 and rows.max() <= 1:
            forms.append(np.round(rows * 255).astype(np.uint8))
        return _windows_of(forms)

    @cached_property
    def _doubles(self) -> np.ndarray:
        return _windows_of([self._rows.astype(np.float64)])

    @cached_property
    def _pairs(self) -> set[tuple[float, float]]:
        rounded = np.round(self._rows.astype(np.float64), 4)
        return set(zip(rounded[:, :-1].ravel(), rounded[:, 1:].ravel(), strict=True))

    def within(self, data: bytes) -> bool:
        for shift in range(_WINDOW):
            count = (len(data) - shift) // _WINDOW
            if count <= 0:
                break
            words = np.frombuffer(data, "<u8", count, shift)
            doubles = _among(words, self._doubles)
            # One alone may be a simple fraction that was counted somewhere else.
            if _among(words, self._windows).any() or (doubles[1:] & doubles[:-1]).any():
                return True
        digits = [round(float(number), 4) for number in _NUMBER.findall(data)]
        return any(pair in self._pairs for pair in pairwise(digits))


def _windows_of(forms: list[np.ndarray]) -> np.ndarray:
    """The sorted windows of rows in some forms and in both orders of bytes, but runs of a byte."""
    found = []
    for form in (*forms, *(form.byteswap() for form in forms)):
        flat = np.ascontiguousarray(form).view(np.uint8).reshape(len(form), -1)
        for begin in range(0, flat.shape[1] - _WINDOW + 1, form.dtype.itemsize):
            found.append(np.ascontiguousarray(flat[:, begin : begin + _WINDOW]).view("<u8"))
    windows = np.unique(np.concatenate(found))
    runs = [int.from_bytes(bytes([byte]) * _WINDOW, "little") for byte in range(256)]
    return windows[~np.isin(windows, np.array(runs, np.uint64))]


def _among(words: np.ndarray, windows: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(windows, words), len(windows) - 1)
    return windows[places] == words


def unfolded(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """The bytes, and all that can be decompressed or decoded from somewhere inside them."""
    yield data
    if depth == 0:
        return
    for magic, unfold in _FOLDED.items():
        begin = data.find(magic)
        while begin >= 0:
            inner = b""
            with suppress(*_BROKEN):
                inner = unfold(data[begin:])
            if len(inner) >= _WINDOW:
                yield from unfolded(inner, depth - 1)
            begin = data.find(magic, begin + 1)
    for coded in _BASE64.findall(data):
        plain = coded.replace(b"-", b"+").replace(b"_", b"/")
        for begin in range(4):  # a letter before it may belong to something else
            whole = plain[begin : begin + (len(plain) - begin) // 4 * 4]
            inner = base64.b64decode(whole)
            if any(magic in inner for magic in _FOLDED):
                yield from unfolded(inner, depth - 1)


def _deflated(wbits: int) -> Callable[[bytes], bytes]:
    return lambda data: zlib.decompressobj(wbits).decompress(data)


def _zipped(data: bytes) -> bytes:
    name, extra = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
    return zlib.decompressobj(-15).decompress(data[30 + name + extra :])


def _zstandard(data: bytes) -> bytes:
    with pa.CompressedInputStream(io.BytesIO(data), "zstd") as stream:
        inner = b""
        with suppress(OSError):  # what follows the frame is none
            while piece := stream.read(2**16):
                inner += piece
        return inner


_FOLDED: dict[bytes, Callable[[bytes], Any]] = {
    b"\x1f\x8b\x08": _deflated(31),
    b"\x78\x01": _deflated(15),
    b"\x78\x5e": _deflated(15),
    b"\x78\x9c": _deflated(15),
    b"\x78\xda": _deflated(15),
    b"PK\x03\x04": _zipped,
    b"\x28\xb5\x2f\xfd": _zstandard,
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data),
    b"\xfd7zXZ\x00": lambda data: lzma.LZMADecompressor().decompress(data),
}
_BROKEN = (zlib.error, OSError, EOFError, lzma.LZMAError, pa.ArrowInvalid, ValueError)
