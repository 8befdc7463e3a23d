"""The confidence of networks: how true their probabilities are at the sites that they serve.

Reference:
    Guo et al.: On calibration of modern neural networks, arXiv 1706.04599 (calibration error).
    Geifman, El-Yaniv: Selective classification for deep neural networks, arXiv 1705.08500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_BINS = 15

COVERAGE = 0.8
"""Share of the predictions that are kept, the most confident ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The predictions of one network at one site, as far as their confidence is concerned.

    Args:
        loss: Mean cross-entropy, nats.
        confident: Accuracy of the most confident share `COVERAGE`, in [0, 1].
        bins: (15, 3) float64, by equal ranges of the largest probability: number of predictions,
            sum of these probabilities, number of right ones.
    """

    loss: float
    confident: float
    bins: Tensor


@torch.no_grad()
def predictions(logits: Tensor, y: Tensor) -> Predictions:
    """The confidence of predictions.

    Args:
        logits: (n, K) float32.
        y: (n,) int64.
    """
    found = logits.double().softmax(1).max(dim=1)
    right = (found.indices == y).double()
    bins = torch.zeros(_BINS, 3, dtype=torch.float64)
    place = (found.values * _BINS).long().clamp(max=_BINS - 1)
    bins.index_add_(0, place, torch.stack([torch.ones_like(right), found.values, right], dim=1))
    kept = found.values.argsort(descending=True, stable=True)[: max(1, round(COVERAGE * len(y)))]
    return Predictions(
        loss=float(functional.cross_entropy(logits.double(), y)),
        confident=float(right[kept].mean()),
        bins=bins,
    )


def calibration_error(bins: Tensor) -> float:
    """The mean distance between probability and share of right answers, weighted by predictions.

    Args:
        bins: (15, 3) float64, as in `Predictions`, summed over sites.

    >>> calibration_error(torch.tensor([[10.0, 9.0, 8.0]]).double())
    0.1
    """
    gaps = (bins[:, 1] - bins[:, 2]).abs().sum() / bins[:, 0].sum()
    return round(float(gaps), 6)


def summarise_confidence(
    sites: Sequence[Mapping[str, Predictions]],
) -> dict[str, dict[str, float]]:
    """The means over sites by arm: "loss", "calibration_error" (pooled) and "accuracy_at_80"."""
    table = {}
    for arm in sites[0]:
        own = [site[arm] for site in sites]
        table[arm] = {
            "loss": round(sum(one.loss for one in own) / len(own), 4),
            "calibration_error": round(
                calibration_error(torch.stack([one.bins for one in own]).sum(0)), 4
            ),
            "accuracy_at_80": round(sum(one.confident for one in own) / len(own), 4),
        }
    return table
