"""The Gaussian mechanism: clipping of an update to a length, and normal noise.

For research: it protects a whole site at once, which costs more accuracy than what sites do, the
protection of each example by `f2l_fed.privacy.dp_sgd`. No command uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.errors import AdmissionError
from f2l_fed.privacy.accountant import require_positive

# Rounding to float32 lengthens a vector by at most 2**-24 of itself, which is less than this
# factor takes off.
_ROUNDING = 1 - 2.0**-23


def clip(update: Tensor, max_norm: float) -> Tensor:
    """Scales an update down to a length if it is longer.

    Args:
        update: (D,) float32.
        max_norm: Largest Euclidean length.

    Returns:
        (D,) float32, of a length that is not above ``max_norm`` even after rounding.

    Raises:
        AdmissionError: If the update isn't finite, so that no scaling could bound it.
        UsageError: If the length isn't positive.

    >>> clip(torch.tensor([3.0, 4.0]), 10.0).tolist()
    [3.0, 4.0]
    >>> round(float(clip(torch.tensor([3.0, 4.0]), 1.0).norm()), 6)
    1.0
    """
    return _clip(update, max_norm).float()


def add_noise(
    update: Tensor, *, max_norm: float, noise_multiplier: float, rng: torch.Generator
) -> Tensor:
    """Clips an update, then adds normal noise to it.

    Args:
        update: (D,) float32.
        max_norm: Largest Euclidean length, to which longer updates are clipped.
        noise_multiplier: Standard deviation of the noise in every coordinate, over ``max_norm``.
        rng: Draws the noise. Seed it from the operating system and never from names that others
            know: anyone who can draw the same noise again can subtract it.

    Returns:
        (D,) float32.

    Raises:
        AdmissionError: If the update isn't finite.
        UsageError: If the length or the noise isn't positive.
    """
    require_positive("noise_multiplier", noise_multiplier)
    clipped = _clip(update, max_norm)
    # In float64, so that the rounding of the sum hides the gaps between float32 draws.
    noise = torch.randn(clipped.shape, generator=rng, dtype=torch.float64)
    return (clipped + noise_multiplier * max_norm * noise).float()


def _clip(update: Tensor, max_norm: float) -> Tensor:
    require_positive("max_norm", max_norm)
    if not update.isfinite().all():
        raise AdmissionError(
            "the update holds numbers that are not finite",
            remedy="Lower the learning rate, or look for damaged examples.",
        )
    exact = update.double()
    norm = float(exact.norm())
    return exact * (max_norm / norm * _ROUNDING) if norm > max_norm else exact
