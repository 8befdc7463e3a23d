"""The common part by blocks is that of the split, and is written where the join would."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.matrices.columns import Stored
from f2l_fed.symmetry.common_part import CommonPart, PlacedCommonPart, rows_of
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from tests.support.small import rng, small_target


@pytest.fixture(params=[True, False], ids=["symmetric", "shared labels"])
def symmetry(request):
    return OutputSymmetry.of(small_target(), enabled=request.param)


def heads():
    """Nothing but output rows."""
    return OutputSymmetry(torch.arange(0), torch.arange(12).view(3, 4), 12)


def check(symmetry):
    weights, starts = torch.randn(2, 6, symmetry.size, generator=rng())
    whole = symmetry.split(weights - starts)
    part = CommonPart(Stored(weights, starts), symmetry)
    n, width = part.shape
    assert (n, width) == whole.common.shape
    torch.testing.assert_close(part.block(), whole.common)
    for start, stop in [(0, 1), (width - 3, width), (width // 2, width - 1), (1, 4)]:
        expected = whole.common[2:5, start:stop]
        torch.testing.assert_close(part.block(slice(2, 5), slice(start, stop)), expected)
    torch.testing.assert_close(rows_of(part.of, symmetry), whole.rows)
    into = torch.full((6, symmetry.size), torch.nan)
    cut = width // 2
    for some in (slice(0, cut), slice(cut, width)):
        PlacedCommonPart(symmetry)(into, some, whole.common[:, some])
    nothing = IsotypicParts(whole.common, torch.zeros_like(whole.rows))
    torch.testing.assert_close(into, symmetry.join(nothing))


def test_blocks_are_those_of_the_split(symmetry):
    check(symmetry)


def test_so_are_those_of_heads_alone():
    check(heads())
