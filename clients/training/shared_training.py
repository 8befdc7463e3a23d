"""The answer of a site to a task with a network that all sites share.

The site makes its own network of the release's and of what it has returned last, and keeps it. Then
it takes the shared network a few passes further, from the task's anchor, and returns that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clients.training.accepted_request import AcceptedRequest
from clients.training.fine_tuning import FineTuned, tempered
from clients.training.probe_cache import digest_of, read_probes, write_probes
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.shared_network import SharingSite, few_examples
from f2l_fed.local_training.site_streams import NO_ROUND, steps_stream, support_stream
from f2l_fed.wire.messages import ProbeRequest, Task, Update

_KEPT = 2
"""Latest rounds whose passes are kept: a round may be asked for again, and needs the one before."""

_UPDATE = 1
"""Stream of the passes that are returned; those of the site's own network have the first one."""


def own_network(accepted: AcceptedRequest[Task], *, steps: int | None = None) -> FineTuned:
    """The site's own network of a release.

    Args:
        accepted: The task.
        steps: Gradient steps; None for as many as the settings say.
    """
    site, task, sharing = accepted.site, accepted.request, _sharing(accepted)
    candidates = task.candidates[0] if task.candidates else {ANCHOR: accepted.anchor}
    returned = None if sharing.config.is_early(task.release) else returned_last(accepted)
    kind, start = sharing.start(candidates, returned)
    recipe = sharing.config.own_recipe(len(site.train.y), task.release)
    if steps is not None:
        recipe = replace(recipe, steps=steps)
    rng = steps_stream(task.frame.lineage, task.round, site.config.name)
    weights = sharing.own_network(start, recipe, rng)
    made = tempered(site, accepted.target, kind, start, weights, 1.0)
    return replace(made, recipe=recipe, falling=True)


def update_of_shared(
    accepted: AcceptedRequest[Task], network: FineTuned
) -> tuple[Update, tuple[float, ...]]:
    """The update of a site without a privacy budget, and the length of its change.

    Args:
        accepted: The task.
        network: The site's own network, whose numbers are declared.

    Raises:
        PolicyRefusal: If a network or a context overflows.
    """
    site, task = accepted.site, accepted.request
    weights, contexts = passes(accepted), contexts_of(accepted)
    if not bool(contexts.isfinite().all()):
        raise PolicyRefusal("diverged")
    numbers = network.numbers(len(site.train.y), 0)
    del numbers["steps"]
    update = Update(
        site=site.config.name,
        round=task.round,
        chosen=(network.chosen,),
        weights=weights[None],
        probes=contexts,
        numbers=numbers,
    )
    return update, (float((weights.double() - accepted.anchor.double()).norm()),)


def passes(accepted: AcceptedRequest[Task]) -> Tensor:
    """(D,) float32, the shared network after the site's passes, which the site keeps, too.

    Raises:
        PolicyRefusal: If it overflows.
    """
    site, task = accepted.site, accepted.request
    rng = steps_stream(task.frame.lineage, task.round, site.config.name, _UPDATE)
    weights = _sharing(accepted).update(accepted.anchor, rng)
    if not bool(weights.isfinite().all()):
        raise PolicyRefusal("diverged")
    _keep(accepted, weights)
    return weights


def contexts_of(accepted: AcceptedRequest[ProbeRequest | Task]) -> Tensor:
    """(E, D) float32, a context for each episode, on a few examples in the site's own mix."""
    frame, sharing = accepted.request.frame, _sharing(accepted)
    most = frame.shots * frame.classes
    draws = (
        support_stream(frame.lineage, accepted.site.config.name, episode)
        for episode in range(frame.episodes)
    )
    return torch.stack(
        [
            sharing.context(accepted.anchor, few_examples(sharing.y, most, rng), frame.probe)
            for rng in draws
        ]
    )


def returned_last(accepted: AcceptedRequest[Task]) -> Tensor | None:
    """(D,) float32, the end of the site's latest `passes` before this round; None without any.

    Those that went on from a later release than the task's do not count: it was rolled back.
    """
    task = accepted.request
    for file in reversed(_returned(accepted)):
        earlier = task.round == NO_ROUND or file.round < task.round
        if earlier and file.release <= task.release:
            kept = read_probes(file.path, _digest(accepted))
            if kept is not None:
                return kept[0]
    return None


@dataclass(frozen=True, slots=True, order=True)
class _Returned:
    """A file with the end of the passes of one round, from one release."""

    round: int
    release: str
    path: Path


def _returned(accepted: AcceptedRequest[Task]) -> list[_Returned]:
    """The files that are kept, by round."""
    found = []
    for path in accepted.site.state.glob("returned-*.safetensors"):
        _, number, release = path.stem.split("-", 2)
        if number.isdecimal():
            found.append(_Returned(int(number), release, path))
    return sorted(found)


def _keep(accepted: AcceptedRequest[Task], weights: Tensor) -> None:
    task, state = accepted.request, accepted.site.state
    path = state / f"returned-{task.round:05d}-{task.release}.safetensors"
    write_probes(path, weights[None], _digest(accepted))
    for file in _returned(accepted)[:-_KEPT]:
        file.path.unlink(missing_ok=True)


def _sharing(accepted: AcceptedRequest[ProbeRequest | Task]) -> SharingSite:
    train, shared = accepted.site.train, accepted.request.frame.shared
    assert shared is not None
    return SharingSite(target=accepted.target, x=train.x, y=train.y, config=shared)


def _digest(accepted: AcceptedRequest[Task]) -> str:
    frame = accepted.request.frame
    return digest_of(f"{frame.lineage} {frame.layout}", [])
