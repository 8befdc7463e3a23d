"""Heads of sites with different numbers of classes, padded with rows of zeros to one width.

A head that was solved from zero has rows that sum to zero, whatever its number of classes. So a
row of zeros for a class that a site lacks changes neither the mean row nor what a linear map of
rows is fitted on, and the heads of all sites lie in one matrix. A flat head has all weights before
all biases, so rows are added to each of the two, and not at the end.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from f2l_fed.errors import LayoutMismatch, TargetError
from f2l_fed.targets.body import Body
from f2l_fed.targets.build import build_target
from f2l_fed.targets.config import FEWEST
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.layout import WeightLayout

_NOTHING = 1e-5
"""Length of a row that is no more than rounding, relative to the longest one."""


def classes_of_width(width: int, largest: WeightLayout) -> int:
    """The number of classes of a head with so many numbers.

    Args:
        width: K * F weights and K biases, where there are biases.
        largest: Layout of a head for the most classes that a site may have.

    Raises:
        LayoutMismatch: If it is no head on these features, or one for too few or too many classes.
    """
    row, most = _row_size(largest), _most(largest)
    if width % row or not FEWEST <= width // row <= most:
        raise LayoutMismatch(
            "a head has a width that no number of classes gives",
            expected=f"{row} numbers for each of {FEWEST} to {most} classes",
            got=f"{width} numbers",
            remedy="Use the same target network and the same version on both sides.",
        )
    return width // row


def padded(heads: Tensor, largest: WeightLayout) -> Tensor:
    """Heads with rows of zeros up to the most classes: (n, K * (F + 1)) to (n, H).

    Raises:
        LayoutMismatch: As `classes_of_width`.
    """
    classes, most = classes_of_width(heads.shape[1], largest), _most(largest)
    if classes == most:
        return heads
    wide = heads.new_zeros(len(heads), largest.size)
    wide[:, _places(largest, classes)] = heads
    return wide


def cut(heads: Tensor, largest: WeightLayout, classes: int) -> Tensor:
    """The first rows of padded heads: (…, H) to (…, K * (F + 1))."""
    return heads if classes == _most(largest) else heads[..., _places(largest, classes)]


def class_counts(heads: Tensor, largest: WeightLayout) -> Tensor:
    """The number of classes of each of (n, H) padded heads; (n,) int64."""
    parts = heads.split(largest.sizes, dim=1)
    return present_rows(torch.cat([part.unflatten(1, (_most(largest), -1)) for part in parts], 2))


def class_count(head: Tensor, largest: WeightLayout) -> int:
    """The number of classes of one (H,) padded head."""
    return int(class_counts(head[None], largest))


def present_rows(rows: Tensor) -> Tensor:
    """The number of rows of (n, K, R) padded heads up to the last that is none of padding.

    Returns:
        (n,) int64.
    """
    present = row_is_present(rows)
    places = torch.arange(1, rows.shape[1] + 1).expand_as(present)
    return torch.where(present, places, 0).amax(dim=1).clamp(min=FEWEST)


def row_is_present(rows: Tensor) -> Tensor:
    """Whether each of (…, K, R) rows of padded heads is none of padding; (…, K) bool."""
    lengths = rows.double().norm(dim=-1)
    present: Tensor = lengths > _NOTHING * lengths.amax(dim=-1, keepdim=True)
    return present


def with_classes(body: Body, classes: int) -> Body:
    """The same body under a head for another number of classes.

    Raises:
        TargetError: If the target's body depends on the number of classes.
    """
    if classes == body.network.classes:
        return body
    other = _built(body.network.name, body.network.input_shape, classes, body.network.frozen)
    if other.layout != body.layout:
        raise _dependent(body)
    return other


@torch.no_grad()
def require_any_classes(body: Body) -> None:
    """Requires a body that is the same for sites with few and with many classes.

    Raises:
        TargetError: If it has other parameters or features for the fewest classes.
    """
    few = with_classes(body, FEWEST)
    rng = torch.Generator().manual_seed(0)
    weights, x = body.initialise(rng), torch.rand(2, *body.network.input_shape, generator=rng)
    one, other = body.features(weights, x), few.features(weights, x)
    if one.shape != other.shape or not torch.allclose(one, other, atol=1e-5):
        raise _dependent(body)


@lru_cache(maxsize=64)
def _built(
    name: str, input_shape: tuple[int, ...], classes: int, frozen: FrozenPart | None
) -> Body:
    return Body.of(build_target(name, input_shape, classes, frozen))


def _dependent(body: Body) -> TargetError:
    return TargetError(
        "the network's body depends on the number of classes, which differs between sites",
        where=f"target {body.network.name!r}",
        remedy='Use another target, or adapt = "all".',
    )


def _most(largest: WeightLayout) -> int:
    return largest.shapes[0][0]


def _row_size(largest: WeightLayout) -> int:
    return sum(prod(shape[1:]) for shape in largest.shapes)


@lru_cache(maxsize=256)
def _places(largest: WeightLayout, classes: int) -> Tensor:
    """Indices of the first rows in a padded head, in the order of a head of that many classes."""
    index = largest.unflatten(torch.arange(largest.size))
    return torch.cat([index[name][:classes].reshape(-1) for name in largest.names])
