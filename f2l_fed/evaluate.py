"""Arms: the starts a site could have had, measured on sites that never took part.

Every arm gets the same sites, the same few examples and the same local steps; only the start
differs. ``generated`` is what a site would really start from: the candidate, among those a server
would send, with the lowest loss on the site's own examples. No test example is used to choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from scipy.stats import t
from torch import Tensor

from f2l_fed.finetune import STEPS, Recipe, accuracy_after, loss_and_accuracy
from f2l_fed.generator import Generator
from f2l_fed.probe import probe_update, support_set
from f2l_fed.seeds import generator_for
from f2l_fed.targets import Target

ARMS = ("random", "global_mean", "nearest", "soup", "probe", "prior", "generated")
_SOUP = 8

Offer = tuple[Mapping[str, Tensor], ...]
"""For each episode of a site, candidates by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The records that a generator was fitted on, for the arms that use them directly.

    Args:
        contexts: (n, D) float32.
        weights: (n, D) float32.
    """

    contexts: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSite:
    """One site that no training has seen.

    Args:
        name: Its name, for its random streams.
        train: Examples it fine-tunes on: (n, *input_shape) float32 and (n,) int64.
        test: Examples it is measured on.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def candidates(
    generator: Generator,
    records: Records,
    context: Tensor,
    expected: Tensor,
    samples: int,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """What a server offers a site.

    Args:
        generator: The served generator.
        records: What it was fitted on, without the site's own record if it has one.
        context: (D,) float32, the site's probe.
        expected: (D,) float32, what the prior expects of the site.
        samples: Networks to draw from the flow.
        rng: Draws them.

    Returns:
        (D,) float32 by kind: "prior", "global_mean", "nearest", "sample-0", ….
    """
    nearest = (records.contexts - context).square().sum(1).argmin()
    drawn = generator.sample(expected.expand(samples, -1), rng) if samples else expected[:0]
    return {
        "prior": expected,
        "global_mean": generator.mean,
        "nearest": records.weights[nearest],
        **{f"sample-{index}": drawn[index] for index in range(samples)},
    }


def select(
    target: Target, offered: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[str, Tensor]:
    """The kind and weights of the candidate with the lowest loss on a site's own examples."""
    losses = {kind: loss_and_accuracy(target, w, x, y)[0] for kind, w in offered.items()}
    # A network that overflows has the loss NaN, which compares as neither lower nor higher.
    kind = min(losses, key=lambda name: (isnan(losses[name]), losses[name]))
    return kind, offered[kind]


def context_of(
    target: Target, anchor: Tensor, lineage: str, site: HeldOutSite, *, shots: int, probe: Recipe
) -> Tensor:
    """(D,) float32, the probe update of a held-out site from an anchor."""
    x, y = site.train
    support = support_set(y, shots, generator_for(lineage, site.name, "probe"))
    return probe_update(target, anchor, x[support], y[support], probe)


def starts(
    target: Target,
    generator: Generator,
    records: Records,
    lineage: str,
    site: HeldOutSite,
    *,
    shots: int,
    probe: Recipe,
    samples: int,
) -> dict[str, Tensor]:
    """The start of every arm for one held-out site, by name."""
    anchor = generator.prior.anchor
    context = context_of(target, anchor, lineage, site, shots=shots, probe=probe)
    expected = generator.expect(context[None])[0]
    rng = generator_for(lineage, site.name, "candidates")
    offered = candidates(generator, records, context, expected, samples, rng)
    distances = (records.contexts - context).square().sum(1)
    near = distances.topk(min(_SOUP, len(distances)), largest=False).indices
    return {
        "random": target.initialise(generator_for(lineage, site.name, "random")),
        "global_mean": generator.mean,
        "nearest": offered["nearest"],
        "soup": records.weights[near].mean(0),
        "probe": anchor + context,
        "prior": expected,
        "generated": select(target, offered, *site.train)[1],
    }


def measure(
    target: Target,
    starts_by_arm: Mapping[str, Tensor],
    site: HeldOutSite,
    recipe: Recipe,
    lineage: str,
    steps: Sequence[int] = STEPS,
) -> dict[str, list[float]]:
    """Test accuracy of every arm after each number of local steps, at one site."""
    return {
        arm: accuracy_after(
            target,
            start,
            site.train,
            site.test,
            recipe,
            generator_for(lineage, site.name, "local"),
            steps,
        )
        for arm, start in starts_by_arm.items()
    }


def summarise(
    curves: Sequence[Mapping[str, Sequence[float]]], steps: Sequence[int] = STEPS
) -> dict[str, Any]:
    """Mean accuracy over sites with the half-width of its 95% interval, for every arm.

    Args:
        curves: One result of `measure` per site.
        steps: The numbers of steps in it.

    Returns:
        ``{"steps": […], "arms": {arm: {"accuracy": […], "ci95": […]}}}``; the interval is
        Student's over sites.
    """
    table = {}
    for arm in curves[0]:
        values = torch.tensor([list(curve[arm]) for curve in curves], dtype=torch.float64)
        table[arm] = {
            "accuracy": [round(v, 4) for v in values.mean(0).tolist()],
            "ci95": [round(v, 4) for v in half_width(values).tolist()],
        }
    return {"steps": list(steps), "arms": table}


def half_width(values: Tensor) -> Tensor:
    """Half-width of Student's 95% interval of the mean along dimension 0; 0 for one value."""
    n = len(values)
    if n < 2:
        return torch.zeros(values.shape[1:], dtype=torch.float64)
    quantile = float(t.ppf(0.975, n - 1))
    error: Tensor = values.std(0) * (quantile / n**0.5)
    return error


def steps_to_target(part: Mapping[str, Any]) -> dict[str, Any]:
    """Local steps that each arm needs for what a random start has reached at the last step.

    Args:
        part: A result of `summarise`.

    Returns:
        ``{"target": {"arm", "steps", "accuracy"}, "arms": {arm: steps or None}}``.
    """
    steps, arms = part["steps"], part["arms"]
    goal = arms["random"]["accuracy"][-1]
    reached = {
        arm: next((n for n, a in zip(steps, row["accuracy"], strict=True) if a >= goal), None)
        for arm, row in arms.items()
    }
    return {"target": {"arm": "random", "steps": steps[-1], "accuracy": goal}, "arms": reached}
