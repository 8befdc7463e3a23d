"""Fine-tuning at a site: the choice of a start, the network made from it, and the plain update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from statistics import fmean

import torch
from torch import Tensor

from clients.site.model_facts import ModelFacts
from clients.site.model_store import START, Model, ModelStart
from clients.site.site import Site
from clients.site.site_features import on_features
from clients.training.accepted_request import AcceptedRequest, cached_target
from clients.training.probe_cache import probes_of
from f2l_fed.core.device import device_of
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import DataError, TargetError
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.selection import select
from f2l_fed.local_training.site_streams import steps_stream
from f2l_fed.targets import Target
from f2l_fed.wire.messages import Task, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """A fine-tuned network and its start.

    Args:
        chosen: Kind of the start.
        start: (D,) float32.
        weights: (D,) float32, the network.
        before: Loss and accuracy of the start on the validation examples.
        after: Loss and accuracy of the network on them.
        temperature: Divisor of the logits that is in the network already, and not in the start.
        recipe: The steps in between; None for those of the task.
        falling: Whether their learning rate falls to zero.
    """

    chosen: str
    start: Tensor
    weights: Tensor
    before: tuple[float, float]
    after: tuple[float, float]
    temperature: float = 1.0
    recipe: Recipe | None = None
    falling: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether it predicts: neither the network nor its loss has overflowed."""
        return isfinite(self.after[0]) and bool(self.weights.isfinite().all())

    def numbers(self, examples: int, steps: int) -> dict[str, float]:
        """The numbers of an update that has this one network."""
        return {
            "examples": float(examples),
            "steps": float(steps),
            "loss_before": self.before[0],
            "loss_after": self.after[0],
            "accuracy_before": self.before[1],
            "accuracy_after": self.after[1],
        }

    @property
    def change(self) -> float:
        """Euclidean length of the way from the start to the network."""
        return float((self.weights.double() - self.start.double()).norm())


def fine_tune_episodes(accepted: AcceptedRequest[Task]) -> tuple[FineTuned, ...]:
    """For each episode, fine-tunes the candidate with the lowest loss on the training examples."""
    site, task, target = accepted.site, accepted.request, accepted.target
    networks = []
    episodes = task.candidates or ({ANCHOR: accepted.first_anchor},)
    for episode, candidates in enumerate(episodes):
        kind, start = select(target, candidates, site.train.x, site.train.y, keep=task.keep)
        rng = steps_stream(task.frame.lineage, task.round, site.config.name, episode)
        weights = finetune(target, start, site.train.x, site.train.y, task.recipe, rng)
        networks.append(tempered(site, target, kind, start, weights, 1.0))
    return tuple(networks)


def plain_update(accepted: AcceptedRequest[Task], networks: Sequence[FineTuned]) -> Update:
    """The update of a site without a privacy budget, with means over the episodes as numbers."""
    site, task = accepted.site, accepted.request
    return Update(
        site=site.config.name,
        round=task.round,
        chosen=tuple(network.chosen for network in networks),
        weights=torch.stack([network.weights for network in networks]),
        probes=probes_of(accepted),
        numbers={
            "examples": float(len(site.train.y)),
            "steps": float(task.recipe.steps),
            "loss_before": fmean(network.before[0] for network in networks),
            "loss_after": fmean(network.after[0] for network in networks),
            "accuracy_before": fmean(network.before[1] for network in networks),
            "accuracy_after": fmean(network.after[1] for network in networks),
        },
    )


def lowest_loss(networks: Sequence[FineTuned]) -> FineTuned | None:
    """The network with the lowest loss after fine-tuning; None if none is usable."""
    usable = [network for network in networks if network.is_usable]
    return min(usable, key=lambda network: network.after[0], default=None)


def model_of(
    accepted: AcceptedRequest[Task], network: FineTuned, now: datetime
) -> tuple[Model, ModelStart]:
    """The network that the site keeps of a task, and the start that it was made from."""
    site, task = accepted.site, accepted.request
    frame = task.frame
    recipe = network.recipe or task.recipe
    whole = accepted.target if accepted.body is None else accepted.body.network
    layout = whole.layout
    facts = ModelFacts(
        site=site.config.name,
        time=now.isoformat(timespec="seconds"),
        target=frame.target,
        classes=whole.classes,
        labels=site.labels,
        input_shape=frame.input_shape,
        lineage=frame.lineage,
        round=task.round,
        release=task.release,
        chosen=network.chosen,
        layout=layout.digest,
        steps=recipe.steps,
        accuracy_before=network.before[1],
        accuracy=network.after[1],
        encoding=site.encoding.text,
        backbone=frame.frozen.digest if frame.frozen else "",
        features=frame.frozen.features if frame.frozen else 0,
        adapted=frame.frozen.adapted if frame.frozen else 0,
    )
    at_start = replace(facts, steps=0, accuracy=network.before[1])
    start = Model(weights=network.start, layout=layout, facts=at_start)
    return (
        Model(weights=network.weights, layout=layout, facts=facts),
        ModelStart(
            model=start,
            recipe=recipe,
            pull=0.0 if frame.head is None else frame.head.step_pull,
            temperature=network.temperature,
            falling=network.falling,
            own_classes=accepted.body is not None,
        ),
    )


def fine_tune_again(
    site: Site, start: ModelStart, now: datetime, *, steps: int | None = None
) -> tuple[Model, FineTuned]:
    """Fine-tunes a kept start on the examples that the site has now.

    Args:
        site: The site.
        start: The start that it keeps.
        now: The time of the new network.
        steps: Gradient steps; None for as many as the task said.

    Raises:
        DataError: If the site's examples no longer suit the network.
        TargetError: If the network overflows, so that the one kept before is worth more.
    """
    facts = start.model.facts
    if start.own_classes:
        site = site.with_own_classes()
        _require_same_classes(site, facts)
    site.require_fit(facts.input_shape, facts.classes)
    site, frozen = on_features(site, facts.frozen)
    target = cached_target(facts.target, facts.input_shape, facts.classes, frozen)
    target = target.to(device_of(site.config.device))
    recipe = start.recipe if steps is None else replace(start.recipe, steps=steps)
    # The stream's name stays: with it, the same start becomes the same network in every version.
    rng = generator_for(facts.lineage, facts.round, site.config.name, "anew")
    x, y, first = site.train.x, site.train.y, start.model.weights
    weights = finetune(
        target, first, x, y, recipe, rng, pull=start.pull / len(y), falling=start.falling
    )
    network = tempered(site, target, facts.chosen, first, weights, start.temperature)
    if not network.is_usable:
        raise TargetError(
            "the network overflows, so the one kept before stays",
            where=str(site.state / START),
            remedy="Take part in another round, or make it with fewer --steps.",
        )
    facts = replace(
        facts,
        time=now.isoformat(timespec="seconds"),
        labels=site.labels,
        steps=recipe.steps,
        accuracy_before=network.before[1],
        accuracy=network.after[1],
        encoding=site.encoding.text,
    )
    return Model(weights=network.weights, layout=target.layout, facts=facts), network


def _require_same_classes(site: Site, facts: ModelFacts) -> None:
    """Raises DataError if the site has other classes than when the start was made."""
    if (site.classes, site.labels) != (facts.classes, facts.labels):
        raise DataError(
            "the site's classes are not those that the start was made for",
            where=f"site {site.config.name}",
            expected=", ".join(facts.labels) or f"{facts.classes} classes",
            got=", ".join(site.labels) or f"{site.classes} classes",
            remedy="Ask the server for a new one, without --offline.",
        )


def tempered(
    site: Site, target: Target, kind: str, start: Tensor, weights: Tensor, temperature: float
) -> FineTuned:
    """A network with its temperature, measured together with its start.

    Args:
        site: The site.
        target: The whole network.
        kind: Of the start.
        start: (D,) float32, the start, which stays as it is.
        weights: (D,) float32, the network before the temperature.
        temperature: Divisor of its logits.
    """
    made = target.tempered(weights, temperature)
    before, after = (
        loss_and_accuracy(target, theta, site.validation.x, site.validation.y)
        for theta in (target.tempered(start, temperature), made)
    )
    return FineTuned(
        chosen=kind,
        start=start,
        weights=made,
        before=before,
        after=after,
        temperature=temperature,
    )
