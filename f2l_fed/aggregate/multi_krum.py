"""Multi-Krum: the mean of the updates that have the nearest neighbours.

Law: it is a mean of some of the updates, moves along when all are moved together, and needs
n >= 2 f + 3. A Byzantine update can be among those, but only one within the honest
updates' distances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting
from f2l_fed.aggregate.gram import TIE, gram_matrix, squared_distances
from f2l_fed.aggregate.updates import Updates
from f2l_fed.errors import AdmissionError


def multi_krum(byzantine: int) -> Aggregator[Updates]:
    """The weighted mean of the updates that `krum_selection` keeps.

    Args:
        byzantine: Number of Byzantine updates to tolerate.
    """

    def rule(rows: Updates) -> Tensor:
        weights = rows.weights * krum_selection(gram_matrix(rows), byzantine)
        return rows.combine(weights / weights.sum())

    return collecting(rule)


def krum_selection(gram: Tensor, byzantine: int) -> Tensor:
    """Selects the n - f - 2 updates with the nearest neighbours, and ties with the last of them.

    A score is the sum of squared distances to the n - f - 2 nearest others; Byzantine updates
    far from all honest ones can't have a small one.

    Args:
        gram: (n, n) float64.
        byzantine: f, number of Byzantine updates to tolerate.

    Returns:
        (n,) bool.

    Raises:
        AdmissionError: If n < 2 f + 3.

    Reference:
        Blanchard et al.: Machine learning with adversaries, NeurIPS 2017, sections 4 and 5.
    """
    n, near = len(gram), len(gram) - byzantine - 2
    if n < 2 * byzantine + 3:
        raise AdmissionError(
            f"too few updates for Multi-Krum against {byzantine} Byzantine ones",
            expected=f"{2 * byzantine + 3} or more",
            got=str(n),
            remedy="Wait for more sites or tolerate fewer Byzantine sites.",
        )
    others = squared_distances(gram).fill_diagonal_(torch.inf)
    scores = others.sort(dim=1).values[:, :near].sum(dim=1)
    return scores <= scores.sort().values[near - 1] * (1 + TIE)
