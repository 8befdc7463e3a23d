"""Gram matrices in float64, of large matrices that are read a block at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace


@dataclass(frozen=True, slots=True)
class GramMatrix:
    """The smaller Gram matrix of the rows of an (n, p) matrix less their mean.

    Args:
        matrix: (min(n, p), min(n, p)) float64.
        mean: (p,) float64, the mean row, or zero.
        of_rows: Whether it is (n, n), and not (p, p).
    """

    matrix: Tensor
    mean: Tensor
    of_rows: bool


def gram_matrix(x: Columns, *, centre: bool, work: Workspace = IN_MEMORY) -> GramMatrix:
    """The Gram matrix of rows less their mean, or of rows as they are."""
    n, p = x.shape
    gram = torch.zeros(min(n, p), min(n, p), dtype=torch.float64)
    if n <= p:
        means = [torch.zeros(0, dtype=torch.float64)]
        for found, mean in work.each(_of_columns, parts(n, p), x, centre):
            gram += found
            means.append(mean)
        return GramMatrix(gram, torch.cat(means), of_rows=True)
    mean = torch.zeros(p, dtype=torch.float64)
    if centre:
        for total in work.each(_sum_of_rows, parts(p, n), x):
            mean += total
        mean /= n
    for found in work.each(_of_rows, parts(p, n), x, mean):
        gram += found
    return GramMatrix(gram, mean, of_rows=False)


def _of_columns(part: slice, x: Columns, centre: bool) -> tuple[Tensor, Tensor]:
    n, _ = x.shape
    gram = torch.zeros(n, n, dtype=torch.float64)
    mean = torch.zeros(part.stop - part.start, dtype=torch.float64)
    for some in blocks(n, part):
        block = x.block(columns=some).double()
        if centre:
            own = block.mean(0)
            mean[some.start - part.start : some.stop - part.start] = own
            block = block - own
        gram += block @ block.T
    return gram, mean


def _sum_of_rows(part: slice, x: Columns) -> Tensor:
    found = [x.block(some).double().sum(0) for some in blocks(x.shape[1], part)]
    return torch.stack(found).sum(0)


def _of_rows(part: slice, x: Columns, mean: Tensor) -> Tensor:
    gram = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for some in blocks(len(mean), part):
        block = x.block(some).double() - mean
        gram += block.T @ block
    return gram


def eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (r,) and eigenvectors (n, r) of a Gram matrix, without those of no weight."""
    values, vectors = torch.linalg.eigh(gram)
    keep = values > values[-1:].clamp(min=1e-300) * 1e-12
    return values[keep], vectors[:, keep]
