"""The search for marks finds each of them, however it is written down."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from tests.support.marks import Marks

TEXT = "ward7-canary-8c1f0a"
RNG = np.random.default_rng(0)
ROWS = RNG.random((20, 64), np.float32)
MARKS = Marks({"text": TEXT}, {"rows": ROWS})

NOISE = random.Random(0).randbytes(200_003)
"""An odd number of bytes, so that nothing that follows is aligned."""

ROW = ROWS[7]
TEXTS: dict[str, bytes] = {
    "utf-8": TEXT.encode(),
    "other case": TEXT.upper().encode(),
    "utf-16": TEXT.encode("utf-16"),
    "hexadecimal": TEXT.encode().hex().encode(),
    "base64": base64.b64encode(b"/data/" + TEXT.encode() + b"/x"),
    "base64 at another place": base64.urlsafe_b64encode(b"/data/w" + TEXT.encode()),
    "base64 of what follows at a third place": base64.b64encode(b"ab/data/" + TEXT.encode()),
}
NUMBERS: dict[str, bytes] = {
    "float32": ROW.tobytes(),
    "float32, big-endian": ROW.astype(">f4").tobytes(),
    "float64": ROW.astype(np.float64).tobytes(),
    "float16": ROW.astype(np.float16).tobytes(),
    "two of them": ROW[9:11].tobytes(),
    "pixels": np.round(ROW * 255).astype(np.uint8).tobytes(),
    "decimal digits": json.dumps([float(value) for value in ROW[3:5]]).encode(),
    "fewer digits": b"%.5f; %.5f" % tuple(ROW[3:5]),
    "safetensors": save({"w": ROWS}),
}


def zipped(data: bytes) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    return file.getvalue()


def npz(data: bytes) -> bytes:
    np.savez_compressed(file := io.BytesIO(), x=np.frombuffer(data, np.uint8))
    return file.getvalue()


FOLDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zstandard": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "zip": zipped,
    "npz": npz,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip in base64": lambda data: base64.b64encode(gzip.compress(data)),
}


@pytest.mark.parametrize("form", TEXTS)
def test_a_text_is_found(form):
    assert MARKS.found(NOISE + TEXTS[form] + NOISE) == {"text"}


@pytest.mark.parametrize("form", NUMBERS)
def test_a_row_is_found(form):
    assert MARKS.found(NOISE + NUMBERS[form] + NOISE) == {"rows"}


@pytest.mark.parametrize("fold", FOLDS)
def test_both_are_found_inside_what_is_compressed(fold):
    inner = NOISE[:1001] + TEXT.encode() + NOISE[:55] + ROW.tobytes() + NOISE[:1000]
    assert MARKS.found(NOISE[:777] + FOLDS[fold](inner) + b"\0and more") == {"text", "rows"}


def test_other_numbers_and_texts_are_not_taken_for_marks(tmp_path):
    others = RNG.random((5000, 64), np.float32)
    digits = json.dumps([float(value) for value in others[:50].ravel()]).encode()
    data = others.tobytes() + NOISE + digits + b"ward7-canary"
    assert MARKS.found(data) == set()
    (tmp_path / "others").write_bytes(data)
    assert MARKS.found_below(tmp_path) == {}


def test_files_and_their_names_are_searched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.gz").write_bytes(gzip.compress(ROW.tobytes()))
    (tmp_path / TEXT).mkdir()
    assert MARKS.found_below(tmp_path) == {"a/b.gz": {"rows"}, TEXT: {"text"}}
