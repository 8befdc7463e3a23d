"""Arms: the starts a site could have had, measured on sites that never took part.

Every arm gets the same sites, the same few examples and the same local steps; only the start
differs. ``generated`` is what a site would really start from: what it makes, by its own examples,
of the candidates that a server would send. ``gaussian`` is the same with normal noise around the
prior in place of what the flow makes of it, ``wrong_context`` the prior for a stranger's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.generator.candidates import FittedRecords, candidates_for_service
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import STEPS, accuracy_after
from f2l_fed.local_training.probe import probe_update, support_set
from f2l_fed.local_training.selection import select
from f2l_fed.targets import Target

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
    records: FittedRecords,
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
        offered = candidates_for_service(
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
