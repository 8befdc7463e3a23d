"""Inner products of updates, all that Multi-Krum and the geometric median need of them.

Law: the Gram matrix of all columns is the sum of those of blocks of columns, so workers need
never see whole updates; the rules work on n x n numbers and end with one coefficient for each
update.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.updates import BLOCK, Updates

TIE = 1e-9
"""Inner products carry rounding, so what differs by less than this share is a tie."""


def gram_matrix(rows: Updates, *, block: int = BLOCK) -> Tensor:
    """Inner products of the updates, (n, n) float64, with memory for a block of columns."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for narrow in rows.blocks(block):
        part = narrow.double()
        gram.addmm_(part, part.T)
    return gram


def squared_distances(gram: Tensor) -> Tensor:
    """(n, n) squared Euclidean distances from inner products.

    >>> squared_distances(torch.tensor([[9.0, 12.0], [12.0, 16.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    squares = gram.diagonal()
    return (squares[:, None] + squares - gram - gram.T).clamp(min=0).fill_diagonal_(0)
