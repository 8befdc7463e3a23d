"""The temperature of a site's network: the divisor of its logits that makes its confidence true.

Heads that are pulled towards a prior are less sure than they could be, in the same way at all
sites. A site with a few examples can't find that out, but the federation can: every training site
makes a head on few of its examples as a new site would, and returns its loss on the others at a few
temperatures.

Reference:
    Guo et al.: On calibration of modern neural networks, arXiv 1706.04599.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.local_training.adapted_network import adapted_head
from f2l_fed.local_training.config import LOSSES, TEMPERATURES, HeadConfig
from f2l_fed.local_training.probe import support_set
from f2l_fed.targets.body import Body

_TRIMMED = 0.2
"""Share of the sites whose losses are dropped at either end."""


@torch.no_grad()
def left_out_losses(
    body: Body,
    weights: Tensor,
    generated: Tensor,
    x: Tensor,
    y: Tensor,
    config: HeadConfig,
    shots: int,
    rng: torch.Generator,
) -> dict[str, float]:
    """The losses of a head on few examples at the site's others, by `LOSSES`.

    Args:
        body: The body.
        weights: (B,) float32.
        generated: (H,) float32, generated for the context of the same few examples, by a generator
            that has not seen this site.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Strengths.
        shots: Examples per class of the head.
        rng: Draws these examples as it did for the context.

    Returns:
        Mean cross-entropies, nats; nothing where no example is left.
    """
    support = support_set(y, shots, rng)
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[support] = False
    if not bool(rest.any()):
        return {}
    head = adapted_head(body, weights, generated, x[support], y[support], config)
    logits = body.head.logits(head, body.features(weights, x[rest]))
    return {
        name: float(functional.cross_entropy(logits / temperature, y[rest]))
        for name, temperature in zip(LOSSES, TEMPERATURES, strict=True)
    }


def fitted_temperature(numbers: Sequence[Mapping[str, float]]) -> float | None:
    """The temperature of least loss over sites; None if none has told its losses.

    Args:
        numbers: The numbers of each site, with `LOSSES` among them or without.

    Returns:
        Between grid points by a parabola in the logarithm; the mean over sites leaves out a fifth
        of them at either end, so that no site decides it.
    """
    complete = [own for own in numbers if all(name in own for name in LOSSES)]
    if not complete:
        return None
    losses = torch.tensor([[own[name] for name in LOSSES] for own in complete]).double()
    # Against the loss at 1, since sites differ far more in how hard their tasks are.
    gains = (losses - losses[:, TEMPERATURES.index(1.0), None]).sort(dim=0).values
    dropped = int(_TRIMMED * len(gains))
    mean = gains[dropped : len(gains) - dropped].mean(0)
    best = int(mean.argmin())
    grid = torch.tensor(TEMPERATURES, dtype=torch.float64).log()
    if 0 < best < len(grid) - 1:
        near = slice(best - 1, best + 2)
        a, b, _ = torch.linalg.solve(torch.vander(grid[near], 3), mean[near]).tolist()
        return float(torch.tensor(-b / (2 * a)).clamp(grid[best - 1], grid[best + 1]).exp())
    return TEMPERATURES[best]


def temperature_for(known: Sequence[tuple[int, float]], shots: float) -> float:
    """The temperature for a number of examples per class; 1 if none was learnt.

    Up to the largest number that one was learnt for it is that of the nearest; beyond, it fades: a
    site with many examples fits them in its steps and is no longer held by the pull.

    >>> temperature_for(((1, 0.45), (5, 0.64)), 2), temperature_for(((5, 0.64),), 10)
    (0.45, 0.8)
    """
    if not known:
        return 1.0
    largest, temperature = known[-1]
    if shots > largest:
        return float(temperature ** (largest / shots))
    return min(known, key=lambda entry: abs(entry[0] - shots))[1]
