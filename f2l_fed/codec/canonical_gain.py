"""The gain of a codec by canonical weights, measured on networks that it never saw.

Research only: no retraining uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from f2l_fed.codec.round_trip import FitOnWeights, unseen_copies

_WORTH = 0.95
"""Weights are changed only if a codec then loses less than this share of what it lost before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalGain:
    """The loss of a codec with and without canonical weights.

    The loss is relative to the squared norm of the weights, not to their variance: an order of
    the units that brings the networks closer together lowers their variance as well, and would
    be punished for it; scales that spread them would be rewarded.

    Args:
        before: Share of the squared norm of unseen networks that the codec loses.
        after: The same with canonical weights.

    >>> CanonicalGain(before=0.5, after=0.3).helps, CanonicalGain(before=0.5, after=0.5).helps
    (True, False)
    """

    before: float
    after: float

    @property
    def helps(self) -> bool:
        """Whether canonical weights should be used."""
        return self.after < _WORTH * self.before


def held_out_gain(
    weights: Tensor, canonical: Callable[[Tensor], Tensor], fit: FitOnWeights
) -> CanonicalGain:
    """Compares a codec's round trip on networks it never saw, with and without canonical weights.

    Args:
        weights: (n, D) float32, n >= 5; the codec is fitted on the first four fifths.
        canonical: Made with a reference that is none of the last fifth.
        fit: Fits a codec to (m, D) weights.
    """
    return CanonicalGain(before=_lost(weights, fit), after=_lost(canonical(weights), fit))


def _lost(weights: Tensor, fit: FitOnWeights) -> float:
    unseen, copies = unseen_copies(fit, weights)
    return float((copies - unseen).square().sum() / unseen.square().sum().clamp(min=1e-30))
