"""Arms: the starts a site could have had, measured on sites that never took part.

Every arm gets the same sites, the same few examples and the same local steps; only the start
differs. ``generated`` is what a site would really start from: what it makes, by its own examples,
of the candidates that a server would send. ``gaussian`` is the same with normal noise around the
prior in place of what the flow makes of it, ``wrong_context`` the prior for a stranger's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from f2l_fed.candidates import Records, for_service, select
from f2l_fed.config import FederationConfig
from f2l_fed.finetune import STEPS, Recipe, accuracy_after
from f2l_fed.generator import Generator
from f2l_fed.probe import probe_update, support_set
from f2l_fed.seeds import generator_for
from f2l_fed.targets import Target

ARMS = (
    "random",
    "global_mean",
    "nearest",
    "soup",
    "probe",
    "prior",
    "wrong_context",
    "gaussian",
    "generated",
)
_SOUP = 8


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


def context_of(
    config: FederationConfig, target: Target, anchor: Tensor, site: HeldOutSite
) -> Tensor:
    """(D,) float32, the probe update of a held-out site from an anchor."""
    x, y = site.train
    rng = generator_for(config.lineage, site.name, "probe")
    support = support_set(y, config.probe.shots, rng)
    return probe_update(target, anchor, x[support], y[support], config.probe.recipe)


def starts(
    config: FederationConfig,
    target: Target,
    generator: Generator,
    records: Records,
    site: HeldOutSite,
) -> dict[str, Tensor]:
    """The start of every arm for one held-out site, by name."""
    anchor, lineage, choice = generator.prior.anchor, config.lineage, config.candidates
    context = context_of(config, target, anchor, site)
    expected = generator.expect(context[None])[0]
    draws = generator_for(lineage, site.name, "stranger")
    stranger = torch.randint(len(records.contexts), (1,), generator=draws)

    def chosen(evaluations: int | None) -> Tensor:
        rng = generator_for(lineage, site.name, "candidates")
        offered = for_service(
            generator, records, context, expected, choice, rng, evaluations=evaluations
        )
        return select(target, offered, *site.train, keep=choice.keep)[1]

    return {
        "random": target.initialise(generator_for(lineage, site.name, "random")),
        "global_mean": generator.mean,
        "nearest": records.nearest(context, 1)[0],
        "soup": records.nearest(context, _SOUP).mean(0),
        "probe": anchor + context,
        "prior": expected,
        "wrong_context": generator.expect(records.contexts[stranger])[0],
        "gaussian": chosen(0),
        "generated": chosen(None),
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
    quantile = float(stdtrit(n - 1, 0.975))
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
