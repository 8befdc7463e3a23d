"""Records in few coordinates with the same inner products, so that many fits of them cost little.

A ridge regression, a clustering by distances and a projection on principal directions depend on
inner products of records alone. So what is decided by many of these is decided in coordinates of
the span of contexts and networks, which has no more dimensions than there are records.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Stored
from f2l_fed.matrices.gram import eigenvectors
from f2l_fed.matrices.workspace import Workspace
from f2l_fed.prior.linear_prior import PriorFit
from f2l_fed.symmetry.common_part import CommonPart
from f2l_fed.symmetry.output_permutation import OutputSymmetry


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactRecords:
    """The common part of records, moved and turned: contexts and networks each by a vector.

    Args:
        contexts: (n, E, k) float32.
        weights: (n, E, k) float32.
        missed: (n * E, n * E) float64, products of what a prior misses of each network with all.
    """

    contexts: Tensor
    weights: Tensor
    missed: Tensor

    @property
    def symmetry(self) -> OutputSymmetry:
        """None is left: what no permutation changes is all there is."""
        size = self.contexts.shape[2]
        return OutputSymmetry(torch.arange(size), torch.empty(0, 0, dtype=torch.int64), size)


def compact_records(
    contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry, fit: PriorFit, work: Workspace
) -> CompactRecords:
    """The records on which a prior was fitted, in few coordinates.

    Args:
        contexts: (n, E, D) float32.
        weights: (n, E, D) float32.
        symmetry: Coordinates of the prior.
        fit: The prior, which misses some of the weights.
        work: Who works on parts of them.
    """
    rows = weights.flatten(0, 1)
    x, y = (CommonPart(Stored(some.flatten(0, 1)), symmetry) for some in (contexts, weights))
    errors = CommonPart(Stored(rows, fit.held_out.flatten(0, 1)), symmetry)
    n, width = y.shape
    products = torch.zeros(3 * n, n, dtype=torch.float64)
    for found in work.each(_products, parts(3 * n, width), x, y, errors):
        products += found
    if width <= 2 * n:
        placed = torch.cat([some.block() - some.block().mean(0) for some in (x, y)])
    else:
        inner = fit.common.basis * fit.common.singular.square() @ fit.common.basis.T
        both, own = products[:n], products[n : 2 * n]
        gram = torch.cat([torch.cat([inner, both], 1), torch.cat([both.T, own], 1)])
        values, vectors = eigenvectors(gram)
        placed = (vectors * values.sqrt()).float()
    shape = (*contexts.shape[:2], -1)
    return CompactRecords(
        contexts=placed[:n].view(shape),
        weights=placed[n:].view(shape),
        missed=products[2 * n :],
    )


def _products(part: slice, x: CommonPart, y: CommonPart, errors: CommonPart) -> Tensor:
    """(3n, n) float64: of contexts, networks and errors with all networks, less their means."""
    n, _ = y.shape
    total = torch.zeros(3 * n, n, dtype=torch.float64)
    for some in blocks(3 * n, part):
        given, networks, missed = (one.block(columns=some).double() for one in (x, y, errors))
        networks = networks - networks.mean(0)
        total += torch.cat([given - given.mean(0), networks, missed]) @ networks.T
    return total
