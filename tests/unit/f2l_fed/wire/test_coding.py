from __future__ import annotations

import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.wire.coding import decode, encode, head_of
from tests.support.small import rng


def spread(rows: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Rows around one mean, in two parts of very different sizes."""
    size = torch.where(torch.arange(width) < width // 2, 1.0, 1e-3)
    mean, own = (torch.randn(count, width, generator=rng(seed)) for count in (1, rows))
    return (3 * mean + own) * size


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_the_error_is_small_beside_what_rows_tell_in_every_part_of_them(share):
    rows = spread(20, 2000)
    data = encode(rows, share=share)
    error, told = decode(data, "rows") - rows, rows - rows.mean(dim=0)
    for part in (slice(0, 960), slice(1088, 2000)):
        relative = error[:, part].square().mean() / told[:, part].square().mean()
        assert relative < share**2 / 10


def test_rows_take_a_fraction_of_float32():
    assert len(encode(spread(20, 2000), share=1.0)) < 4 * 20 * 2000 / 8
    assert len(encode(spread(1, 2000), share=1.0)) < 4 * 2000 / 2


def test_rows_near_to_what_is_known_are_exact_where_they_have_not_moved():
    known = spread(4, 500)
    rows = known.clone()
    rows[:, :64] += 1e-3 * torch.randn(4, 64, generator=rng(1))
    data = encode(rows, share=0.5, known=known)
    assert head_of(data, "rows").relative
    read = decode(data, "rows", known=known)
    assert torch.equal(read[:, 64:], known[:, 64:])
    moved, error = (rows - known)[:, :64], (read - rows)[:, :64]
    assert error.square().mean() < moved.square().mean() / 30
    # Without what is known, the distances themselves.
    assert torch.allclose(decode(data, "rows")[:, :64], moved, atol=1e-3)


@given(
    st.integers(1, 5),
    st.integers(1, 200),
    st.floats(1e-20, 1e20),
    st.integers(0, 2**32),
)
def test_whatever_is_coded_is_read_with_its_size(rows, width, scale, seed):
    values = scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    data = encode(values, share=0.5)
    if data is not None:
        read = decode(data, "rows")
        assert read.shape == values.shape
        assert bool(read.isfinite().all())
        assert float((read - values).abs().max()) <= float(values.abs().max())


@pytest.mark.parametrize(
    "rows",
    [
        torch.full((2, 200), torch.nan),
        torch.tensor([[torch.inf] * 200]),
        torch.zeros(0, 5),
        torch.zeros(3, 100_000),
        torch.cat([torch.full((1, 200), 1e-3), torch.tensor([[1e9] + [1e-3] * 199])]),
    ],
    ids=["nan", "inf", "none", "nothing but zeros", "far apart"],
)
def test_rows_that_can_not_be_coded_stay_as_they_are(rows):
    data = encode(rows, share=1e-3)
    assert data is None or decode(data, "rows").shape == rows.shape


def damaged(data: bytes) -> dict[str, bytes]:
    head, body = data[:10], data[10:]
    press = zlib.compress(bytes(10**7))
    return {
        "cut off": data[:5],
        "cut": data[:-9],
        "longer": data + b"x",
        "another coding": b"\x02" + data[1:],
        "no truth value": data[:1] + b"\x02" + data[2:],
        "more rows": struct.pack("<BBII", 1, 0, 5, 100) + body,
        "a bomb": head + press,
        "a bomb that says so": struct.pack("<BBII", 1, 0, 2**31, 2**31) + press,
        "no rows": struct.pack("<BBII", 1, 0, 0, 100) + body,
        "not compressed": head + bytes(len(body)),
        "an impossible step": head + zlib.compress(b"\x80\x80" + bytes(2 * 500)),
    }


@pytest.mark.parametrize("kind", sorted(damaged(bytes(20))))
def test_damaged_rows_are_refused(kind):
    data = encode(spread(4, 100), share=0.5)
    assert data is not None
    with pytest.raises(WireError):
        decode(damaged(data)[kind], "rows")


def test_rows_relative_to_others_than_what_is_known_are_refused():
    data = encode(spread(4, 100), share=0.5, known=spread(4, 100, seed=1))
    with pytest.raises(LayoutMismatch):
        decode(data, "rows", known=spread(3, 100))
