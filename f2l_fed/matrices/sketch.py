"""A sketch of the columns of a large matrix: few combinations with nearly the same row distances.

The principal ones are found by one step of subspace iteration, and the rest of the columns goes
into random mixtures.

Reference:
    Halko, Martinsson, Tropp: Finding structure with randomness. SIAM Review 53, 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns
from f2l_fed.matrices.workspace import Workspace


def sketch(
    y: Columns, principal: int, mixed: int, *, centre: bool, work: Workspace
) -> tuple[Tensor, Tensor]:
    """The sketch of an (n, q) matrix less its mean row, and that row, both float64.

    Args:
        y: The matrix, with more columns than the sketch has.
        principal: Combinations along its principal directions.
        mixed: Random mixtures of what is left.
        centre: Take the mean row off; otherwise it is zero.
        work: Who works on parts of it.

    Returns:
        (n, principal + mixed) and (q,).
    """
    rng, (n, q) = torch.Generator().manual_seed(0), y.shape
    some = parts(n, q)

    def of_rows(directions: Tensor) -> tuple[Tensor, Tensor]:
        found = list(work.each(_product, some, y, directions, centre))
        return torch.stack([product for product, _ in found]).sum(0), torch.cat(
            [mean for _, mean in found]
        )

    def draw(count: int) -> Tensor:
        return torch.randn(q, count, generator=rng, dtype=torch.float64)

    seen, mean = of_rows(draw(principal))
    found = work.each(_transposed, some, y, mean, torch.linalg.qr(seen)[0])
    basis = torch.linalg.qr(torch.cat(list(found)))[0]
    mixtures = draw(mixed) / mixed**0.5
    rest = mixtures - basis @ (basis.T @ mixtures)
    return of_rows(torch.cat([basis, rest], dim=1))[0], mean


def _product(part: slice, y: Columns, directions: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    total = torch.zeros(y.shape[0], directions.shape[1], dtype=torch.float64)
    means = []
    for some in blocks(y.shape[0], part):
        block = y.block(columns=some).double()
        means.append(block.mean(0) if centre else torch.zeros_like(block[0]))
        total += (block - means[-1]) @ directions[some]
    return total, torch.cat(means)


def _transposed(part: slice, y: Columns, mean: Tensor, rows: Tensor) -> Tensor:
    found = [
        (y.block(columns=some).double() - mean[some]).T @ rows for some in blocks(y.shape[0], part)
    ]
    return torch.cat(found)
