"""What may enter the zoo: one bad record would reach every site's next start.

Hard rules reject an update when it comes in. A network that is merely unlike the others is kept,
but left out of the retraining; that is decided over all updates together, so that the order in
which they came does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from statistics import median

import torch
from torch import Tensor

from f2l_fed.admission.config import AdmissionConfig


def objection(weights: Tensor, start: Tensor, probe: Tensor, numbers: Mapping[str, float]) -> str:
    """Why an update must be rejected, as a clause, or "" if it may enter the zoo.

    Args:
        weights: (D,) float32, the returned network.
        start: (D,) float32, the candidate it says it started from.
        probe: (D,) float32, the site's context.
        numbers: Declared numbers by name.
    """
    if not bool(torch.isfinite(weights).all()):
        return "weights that are not finite"
    if not bool(torch.isfinite(probe).all()):
        return "a probe that is not finite"
    if torch.equal(weights, start):
        return "an unchanged network"
    if not bool(probe.any()):
        return "an empty probe"
    return _impossible(numbers)


def outliers(norms: Mapping[str, float], config: AdmissionConfig) -> dict[str, str]:
    """Sites whose update is unlike the others', each with the reason as a clause.

    Args:
        norms: Norm of each site's update.
        config: Limits.

    >>> norms = {f"s{i}": 1.0 + i / 100 for i in range(9)} | {"odd": 90.0}
    >>> outliers(norms, AdmissionConfig())
    {'odd': 'an update of norm 90, 29.7 robust deviations from the median'}
    """
    positive_norms = {site: log(norm) for site, norm in norms.items() if norm > 0}
    if len(positive_norms) < config.minimum:
        return {}
    centre = median(positive_norms.values())
    deviation = median(abs(value - centre) for value in positive_norms.values())
    spread = max(1.4826 * deviation, config.floor)
    return {
        site: f"an update of norm {norms[site]:.3g}, {abs(value - centre) / spread:.1f} robust "
        "deviations from the median"
        for site, value in positive_norms.items()
        if abs(value - centre) > config.deviations * spread
    }


def _impossible(numbers: Mapping[str, float]) -> str:
    for name in ("accuracy_before", "accuracy_after"):
        if not 0 <= numbers.get(name, 0.0) <= 1:
            return f"{name} outside [0, 1]"
    for name in ("examples", "steps", "loss_before", "loss_after"):
        if not 0 <= numbers.get(name, 0.0) < float("inf"):
            return f"{name} negative or not finite"
    return ""
