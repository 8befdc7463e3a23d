"""What a site computes: its probe, its choice of a start, its fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from math import isnan
from statistics import fmean

import torch
from torch import Tensor

from clients.site.model_store import Model, ModelFacts, ModelStart
from clients.site.site import Examples, Site
from clients.training.probe_cache import probes_of
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import LayoutMismatch
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.probe import anchor
from f2l_fed.local_training.selection import select
from f2l_fed.targets import Target, build_target
from f2l_fed.wire.messages import Frame, ProbeRequest, Task, Update


def target_of(frame: Frame) -> Target:
    """The network a request is about.

    Raises:
        LayoutMismatch: If this installation builds another network by that name.
    """
    target = _cached_target(frame.target, frame.input_shape, frame.classes)
    if target.layout.digest != frame.layout:
        raise LayoutMismatch(
            "the server has another network by this name",
            where=frame.target,
            expected=frame.layout[:12],
            got=target.layout.digest[:12],
            remedy="Install the same version on both sides.",
        )
    return target


@lru_cache(maxsize=4)
def _cached_target(name: str, input_shape: tuple[int, ...], classes: int) -> Target:
    return build_target(name, input_shape, classes)


def require_anchor(request: ProbeRequest | Task, target: Target) -> None:
    """Raises LayoutMismatch if an anchor that was sent is no network of this target."""
    if request.anchor is not None and len(request.anchor) != target.layout.size:
        raise LayoutMismatch(
            "the anchor has another size",
            expected=str(target.layout.size),
            got=str(len(request.anchor)),
        )


@dataclass(frozen=True, slots=True)
class FineTuned:
    """One start and what became of it; loss and accuracy on the validation examples."""

    chosen: str
    start: Tensor
    weights: Tensor
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def change(self) -> float:
        """Euclidean length of the way from the start to the network."""
        return float((self.weights.double() - self.start.double()).norm())


def fine_tune_episodes(site: Site, task: Task, target: Target) -> tuple[FineTuned, ...]:
    """For each episode chooses the best start on the site's own examples and fine-tunes it.

    The choice is by the training examples.
    """
    frame, train = task.frame, site.train
    episodes = task.candidates or ({ANCHOR: anchor(target, frame.lineage)},)
    tuned = []
    for episode, offered in enumerate(episodes):
        kind, start = select(target, offered, train.x, train.y)
        rng = generator_for(frame.lineage, task.round, site.config.name, "finetune", episode)
        tuned.append(_tuned(site, target, kind, start, task.recipe, rng))
    return tuple(tuned)


def update_of(site: Site, task: Task, target: Target, tuned: Sequence[FineTuned]) -> Update:
    """What is sent of it, with means over the episodes as numbers."""
    return Update(
        site=site.config.name,
        round=task.round,
        chosen=tuple(one.chosen for one in tuned),
        weights=torch.stack([one.weights for one in tuned]),
        probes=probes_of(site, task, target),
        numbers={
            "examples": float(len(site.train.y)),
            "steps": float(task.recipe.steps),
            "loss_before": fmean(one.before[0] for one in tuned),
            "loss_after": fmean(one.after[0] for one in tuned),
            "accuracy_before": fmean(one.before[1] for one in tuned),
            "accuracy_after": fmean(one.after[1] for one in tuned),
        },
    )


def best_of(tuned: Sequence[FineTuned]) -> FineTuned:
    """The one with the lowest loss after fine-tuning."""
    return min(tuned, key=lambda one: (isnan(one.after[0]), one.after[0]))


def fine_tune_again(
    site: Site, start: ModelStart, now: datetime, *, steps: int | None = None
) -> tuple[Model, FineTuned]:
    """Fine-tunes a kept start on the examples that the site has now.

    Args:
        site: Whose examples.
        start: What the site kept of its latest task.
        now: When the network is made.
        steps: Gradient steps; None for as many as the task said.

    Raises:
        DataError: If the site's examples no longer suit the network.
    """
    facts = start.model.facts
    target = _cached_target(facts.target, facts.input_shape, facts.classes)
    site.require_fit(facts.input_shape, facts.classes)
    recipe = start.recipe if steps is None else replace(start.recipe, steps=steps)
    rng = generator_for(facts.lineage, facts.round, site.config.name, "anew")
    tuned = _tuned(site, target, facts.chosen, start.model.weights, recipe, rng)
    made = replace(
        facts,
        time=now.isoformat(timespec="seconds"),
        labels=",".join(site.labels),
        steps=recipe.steps,
        accuracy_before=tuned.before[1],
        accuracy=tuned.after[1],
    )
    return Model(weights=tuned.weights, layout=target.layout, facts=made), tuned


def start_of(model: Model, best: FineTuned, recipe: Recipe) -> ModelStart:
    """What the site keeps of where a network came from."""
    facts = replace(model.facts, steps=0, accuracy=best.before[1])
    return ModelStart(model=replace(model, weights=best.start, facts=facts), recipe=recipe)


def model_of(site: Site, task: Task, target: Target, best: FineTuned, now: datetime) -> Model:
    """What the site keeps of its work: the network, with all that is known of it here."""
    frame = task.frame
    facts = ModelFacts(
        site=site.config.name,
        time=now.isoformat(timespec="seconds"),
        target=frame.target,
        classes=frame.classes,
        labels=",".join(site.labels),
        input_shape=frame.input_shape,
        lineage=frame.lineage,
        round=task.round,
        release=task.release,
        chosen=best.chosen,
        layout=frame.layout,
        steps=task.recipe.steps,
        accuracy_before=best.before[1],
        accuracy=best.after[1],
    )
    return Model(weights=best.weights, layout=target.layout, facts=facts)


def _tuned(
    site: Site, target: Target, kind: str, start: Tensor, recipe: Recipe, rng: torch.Generator
) -> FineTuned:
    weights = finetune(target, start, site.train.x, site.train.y, recipe, rng)
    before, after = (_measured(target, w, site.validation) for w in (start, weights))
    return FineTuned(kind, start, weights, before, after)


def _measured(target: Target, weights: Tensor, examples: Examples) -> tuple[float, float]:
    return loss_and_accuracy(target, weights, examples.x, examples.y)
