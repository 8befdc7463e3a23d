"""Gram matrices in float64, of large matrices that are read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 2**24
"""Numbers in a block, which is in float64 for a while."""


def column_means(x: Tensor, centre: bool) -> Tensor:
    """(p,) float64, the mean row or zero."""
    if not centre:
        return torch.zeros(x.shape[1], dtype=torch.float64)
    return torch.cat([x[:, some].double().mean(0) for some in blocks(*x.shape)] or [x.double()[0]])


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Columns of a block each."""
    width = max(1, _BLOCK // max(rows, 1))
    return (slice(start, min(start + width, columns)) for start in range(0, columns, width))


def gram_matrix(x: Tensor, mean: Tensor | None = None) -> Tensor:
    """The smaller Gram matrix of (n, p) rows less their mean, in float64."""
    n, p = x.shape
    mean = torch.zeros(p, dtype=torch.float64) if mean is None else mean
    gram = torch.zeros(min(n, p), min(n, p), dtype=torch.float64)
    if n <= p:
        for some in blocks(n, p):
            block = x[:, some].double() - mean[some]
            gram += block @ block.T
    else:
        for some in blocks(p, n):
            block = x[some].double() - mean
            gram += block.T @ block
    return gram


def eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (r,) and eigenvectors (n, r) of a Gram matrix, without those of no weight."""
    values, vectors = torch.linalg.eigh(gram)
    keep = values > values[-1:].clamp(min=1e-300) * 1e-12
    return values[keep], vectors[:, keep]
