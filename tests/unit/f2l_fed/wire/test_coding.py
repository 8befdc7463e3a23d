"""Coded rows: small, near to what they stand for, and finite and bounded whatever is in them."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.errors import WireError
from f2l_fed.wire.coding import SHARE, decode, encode, head_of
from tests.support.small import rng


def spread(rows: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Rows around one mean, in two parts of very different sizes."""
    size = torch.where(torch.arange(width) < width // 2, 1.0, 1e-3)
    mean, own = (torch.randn(count, width, generator=rng(seed)) for count in (1, rows))
    return (3 * mean + own) * size


def coded(rows: torch.Tensor, known: torch.Tensor | None = None) -> bytes:
    data = encode(rows, known)
    assert data is not None
    return data


def read(data: bytes, known: torch.Tensor | None = None) -> torch.Tensor:
    return decode(memoryview(data), "rows", known)


@pytest.mark.parametrize("about", ["their mean", "what is known"])
def test_the_error_is_small_beside_what_rows_tell_in_every_part_of_them(about):
    rows = spread(20, 2000)
    known = spread(1, 2000, seed=1)[0] if about == "what is known" else None
    error = read(coded(rows, known), known) - rows
    told = rows - (rows.mean(dim=0) if known is None else known)
    for part in (slice(0, 960), slice(1088, 2000)):
        relative = error[:, part].square().mean() / told[:, part].square().mean()
        assert relative < SHARE**2 / 10


def test_rows_take_a_fraction_of_float32():
    assert len(coded(spread(20, 2000))) < 4 * 20 * 2000 / 5
    assert len(coded(spread(1, 2000), torch.zeros(2000))) < 4 * 2000 / 5
    assert len(coded(spread(1, 2000))) < 4 * 2000 / 2


def test_what_has_not_moved_is_exact():
    known = spread(1, 500)[0]
    rows = known.repeat(4, 1)
    rows[:, :64] += 1e-3 * torch.randn(4, 64, generator=rng(1))
    found = read(coded(rows, known), known)
    assert torch.equal(found[:, 64:], rows[:, 64:])
    moved, error = (rows - known)[:, :64], (found - rows)[:, :64]
    assert error.square().mean() < moved.square().mean() * SHARE**2 / 10


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 200),
    st.floats(1e-20, 1e20),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_whatever_is_coded_is_read_with_its_size(rows, width, scale, relative, seed):
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(rows, width, generator=generator)
    known = scale * torch.randn(width, generator=generator) if relative else None
    data = encode(values, known)
    if data is not None:
        found = read(data, known)
        assert found.shape == values.shape
        far = values if known is None else values - known
        assert float((found - values).abs().max()) <= float(far.abs().max()) * 1.001


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_code_stands_for_a_number_that_is_not_finite(data):
    """Whatever a dishonest site puts into the codes, largest steps and numbers included."""
    rows, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 130))
    relative = data.draw(st.booleans())
    steps = st.integers(-128, 127) if data.draw(st.booleans()) else st.sampled_from([-100, 100])
    blocks = -(-width // 64)
    exponents = data.draw(st.lists(steps, min_size=blocks, max_size=blocks))
    lines = rows + (not relative and rows > 1)
    fill = data.draw(st.sampled_from([b"\xff", b"\xfe", b"\x00", b"\x7f"]))
    packed = struct.pack(f"{blocks}b", *exponents) + fill * (2 * lines * width)
    content = struct.pack("<BII", 1, rows, width) + zlib.compress(packed)
    known = torch.full((width,), -1e30) if relative else None
    try:
        found = read(content, known)
    except WireError:
        return
    assert found.shape == (rows, width)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    "rows",
    [
        torch.full((2, 200), torch.nan),
        torch.tensor([[torch.inf] * 200]),
        torch.zeros(0, 5),
        torch.zeros(3, 100_000),
        torch.ones(1, 1),
    ],
    ids=["nan", "inf", "none", "nothing but zeros", "too small"],
)
def test_rows_that_can_not_be_coded_stay_as_they_are(rows):
    assert encode(rows) is None


def damaged(data: bytes) -> dict[str, bytes]:
    head, body = data[:9], data[9:]
    bomb = zlib.compress(bytes(10**8))
    plain = zlib.decompress(body) if len(data) > 20 else b""
    return {
        "cut off": data[:5],
        "cut": data[:-9],
        "without its checksum": data[:-4],
        "longer": data + b"x",
        "two streams": data + zlib.compress(b"x"),
        "another coding": b"\x02" + data[1:],
        "more rows": struct.pack("<BII", 1, 5, 100) + body,
        "fewer rows": struct.pack("<BII", 1, 3, 100) + body,
        "wider rows": struct.pack("<BII", 1, 4, 101) + body,
        "a bomb": head + bomb,
        "a bomb that says so": struct.pack("<BII", 1, 2**31, 2**31) + bomb,
        "many rows of nothing": struct.pack("<BII", 1, 2**32 - 1, 0) + body,
        "no rows": struct.pack("<BII", 1, 0, 100) + body,
        "not compressed": head + bytes(len(body)),
        "a preset dictionary": head + zlib.compressobj(zdict=b"0").flush(),
        "a raw stream": head + body[2:],
        "a step too large": head + zlib.compress(b"\x65" + plain[1:]),
        "a step too small": head + zlib.compress(b"\x80" + plain[1:]),
    }


@pytest.mark.parametrize("kind", sorted(damaged(bytes(9))))
def test_damaged_rows_are_refused_without_being_unpacked_beyond_their_size(kind):
    broken = damaged(coded(spread(4, 100)))[kind]
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="rows: "):
            read(broken)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # zlib keeps what it has not read of a bomb's 97 kB; unpacked they are 100 MB.
    assert peak < 500_000


def test_a_head_says_no_more_rows_than_its_bytes_may_hold():
    data = struct.pack("<BII", 1, 100, 1000) + bytes(2000)
    with pytest.raises(WireError, match="no possible size: got 100 x 1000"):
        head_of(memoryview(data), "rows")


def test_rows_about_their_mean_and_rows_about_a_vector_are_not_mixed_up():
    """Several rows about their mean have one line more; the reader's place says which it is."""
    known = torch.zeros(100)
    with pytest.raises(WireError, match="another size"):
        read(coded(spread(4, 100)), known)
    with pytest.raises(WireError, match="another size"):
        read(coded(spread(4, 100), known))
