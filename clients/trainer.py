"""What a site computes: its probe, its choice of a start, its fine-tuning."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from torch import Tensor

from clients.model import Facts, Model
from clients.site import Examples, Site
from f2l_fed.errors import LayoutMismatch
from f2l_fed.evaluate import select
from f2l_fed.finetune import finetune, loss_and_accuracy
from f2l_fed.probe import anchor, probe_update, support_set
from f2l_fed.seeds import generator_for
from f2l_fed.targets import Target, build_target
from f2l_fed.wire import Frame, Task, Update


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


def probe_of(site: Site, frame: Frame, target: Target) -> Tensor:
    """(D,) float32, the probe update on a fixed few examples of the site."""
    rng = generator_for(frame.lineage, site.config.name, "probe")
    support = support_set(site.train.y, frame.shots, rng)
    start = anchor(target, frame.lineage)
    return probe_update(target, start, site.train.x[support], site.train.y[support], frame.probe)


def work(site: Site, task: Task, target: Target) -> Update:
    """Chooses the best start on the site's own examples, fine-tunes it, and measures both.

    Loss and accuracy come from the validation examples, the choice from the training examples.
    """
    frame, train = task.frame, site.train
    offered = task.candidates or {"anchor": anchor(target, frame.lineage)}
    chosen, start = select(target, offered, train.x, train.y)
    rng = generator_for(frame.lineage, task.round, site.config.name, "finetune")
    weights = finetune(target, start, train.x, train.y, task.recipe, rng)
    loss_before, accuracy_before = _measured(target, start, site.validation)
    loss_after, accuracy_after = _measured(target, weights, site.validation)
    return Update(
        site=site.config.name,
        round=task.round,
        chosen=chosen,
        weights=weights,
        probe=probe_of(site, frame, target),
        numbers={
            "examples": float(len(train.y)),
            "steps": float(task.recipe.steps),
            "loss_before": loss_before,
            "loss_after": loss_after,
            "accuracy_before": accuracy_before,
            "accuracy_after": accuracy_after,
        },
    )


def model_of(site: Site, task: Task, target: Target, update: Update, now: datetime) -> Model:
    """What the site keeps of its work: the network, with all that is known of it here."""
    frame = task.frame
    facts = Facts(
        site=site.config.name,
        time=now.isoformat(timespec="seconds"),
        target=frame.target,
        classes=frame.classes,
        labels=",".join(site.labels),
        input_shape=frame.input_shape,
        lineage=frame.lineage,
        round=task.round,
        release=task.release,
        chosen=update.chosen,
        layout=frame.layout,
        steps=task.recipe.steps,
        accuracy_before=update.numbers["accuracy_before"],
        accuracy=update.numbers["accuracy_after"],
    )
    return Model(weights=update.weights, layout=target.layout, facts=facts)


def _measured(target: Target, weights: Tensor, examples: Examples) -> tuple[float, float]:
    return loss_and_accuracy(target, weights, examples.x, examples.y)
