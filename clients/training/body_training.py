"""The answer of a site to a task with a body: its own network, its heads and the trained body.

The network that the site keeps is made on the release's body, from the head that was generated for
it. The heads that leave are made on the newer body, which the site then trains further.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from clients.training.accepted_request import AcceptedRequest, episodic_steps, leaving
from clients.training.fine_tuning import FineTuned, tempered
from clients.training.private_body import private_update_on_body
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.adapted_network import (
    HeadPairs,
    adapted_head,
    adapted_network,
    head_pairs,
    site_context,
)
from f2l_fed.local_training.candidate_kinds import ANCHOR, PRIOR
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig
from f2l_fed.local_training.episodic import train_body
from f2l_fed.local_training.site_streams import steps_stream, support_stream
from f2l_fed.local_training.temperature import left_out_losses, temperature_of
from f2l_fed.targets.body import Body
from f2l_fed.targets.config import FEWEST
from f2l_fed.wire.messages import Frame, ProbeRequest, Task, Update


def own_network(accepted: AcceptedRequest[Task]) -> FineTuned:
    """The site's own network: the generated head, refitted, and the task's steps."""
    site, task = accepted.site, accepted.request
    body, head_config, _ = _settings(accepted.body, task.frame)
    weights = accepted.anchor if task.body is None else task.body
    # The context of a site with a privacy budget has told the server nothing.
    generated = None if site.config.privacy.epsilon else _generated(accepted)
    x, y = site.train.x, site.train.y
    head = adapted_head(body, weights, generated, x, y, head_config)
    start = body.join(weights, head)
    rng = steps_stream(task.frame.lineage, task.round, site.config.name)
    made = adapted_network(body, weights, head, x, y, head_config, task.recipe, rng)
    kind = ANCHOR if generated is None else PRIOR
    temperature = temperature_of(task.temperatures, y)
    return tempered(site, body.network, kind, start, made, temperature)


def heads(accepted: AcceptedRequest[Task]) -> HeadPairs:
    """The site's pairs of heads on the request's body.

    Raises:
        PolicyRefusal: If one is not finite.
    """
    site, frame = accepted.site, accepted.request.frame
    body, head_config, episodic = _settings(accepted.body, frame)
    pairs = head_pairs(
        body,
        accepted.anchor,
        site.train.x,
        site.train.y,
        head_config,
        episodic,
        frame.shots,
        lambda pair: support_stream(frame.lineage, site.config.name, pair),
    )
    if not bool(pairs.few.isfinite().all() and pairs.all.isfinite().all()):
        raise PolicyRefusal("diverged")
    return pairs


def context(accepted: AcceptedRequest[ProbeRequest]) -> Tensor:
    """(1, H) float32, the site's context; zeros, which tell nothing, with a privacy budget.

    Raises:
        PolicyRefusal: If it is not finite, or more than one is asked for.
    """
    site, frame = accepted.site, accepted.request.frame
    if frame.episodes != 1:
        raise PolicyRefusal("too-many-contexts")
    if site.config.privacy.epsilon:
        # Nor does their number tell how many classes the site has.
        return torch.zeros(1, accepted.target.layout.size // site.classes * FEWEST)
    body, head_config, _ = _settings(accepted.body, frame)
    head = site_context(body, accepted.anchor, site.train.x, site.train.y, head_config)
    if not bool(head.isfinite().all()):
        raise PolicyRefusal("diverged")
    return head[None]


def update_on_body(
    accepted: AcceptedRequest[Task], network: FineTuned
) -> tuple[Update, tuple[float, ...]]:
    """The update of a site, and the length of every change in it.

    With a privacy budget it is the noised body alone.

    Args:
        accepted: The task.
        network: The site's own network, for the numbers.

    Raises:
        PolicyRefusal: If something overflows, or the privacy budget does not reach.
        TargetError: If there is a privacy budget and the body has batch normalisation.
    """
    site, task = accepted.site, accepted.request
    if budget := site.budget:
        return private_update_on_body(accepted, budget)
    kinds, few, whole = leaving(site, task.frame), None, None
    if "update" in kinds:
        pairs = heads(accepted)
        few, whole = pairs.few, pairs.all
    none = torch.zeros(0, accepted.target.layout.size)
    trained = _trained_body(accepted) if "body" in kinds else None
    changes = [] if whole is None else whole.norm(dim=1).tolist()
    if trained is not None:
        changes.insert(0, float((trained - accepted.anchor).norm()))
    if not all(isfinite(change) for change in changes):
        raise PolicyRefusal("diverged")
    update = Update(
        site=site.config.name,
        round=task.round,
        chosen=() if whole is None else (network.chosen,) * len(whole),
        weights=none if whole is None else whole,
        probes=none if few is None else few,
        numbers=network.numbers(len(site.train.y), task.recipe.steps) | _left_out(accepted),
        body=trained,
    )
    return update, tuple(changes)


def _left_out(accepted: AcceptedRequest[Task]) -> dict[str, float]:
    """The losses of a new site's head at this one; nothing before the first release."""
    site, task = accepted.site, accepted.request
    body, head_config, _ = _settings(accepted.body, task.frame)
    generated = _generated(accepted)
    if task.body is None or generated is None:
        return {}
    return left_out_losses(
        body,
        task.body,
        generated,
        site.train.x,
        site.train.y,
        head_config,
        task.frame.shots,
        support_stream(task.frame.lineage, site.config.name),
    )


def _generated(accepted: AcceptedRequest[Task]) -> Tensor | None:
    """(H,) float32, the head that was generated for the site; None without one.

    One for another number of classes was made for a context that is no longer the site's.
    """
    for candidates in accepted.request.candidates:
        head = candidates.get(PRIOR)
        if head is not None and len(head) == accepted.target.layout.size:
            return head
    return None


def _trained_body(accepted: AcceptedRequest[Task]) -> Tensor:
    site, task = accepted.site, accepted.request
    body, _, episodic = _settings(accepted.body, task.frame)
    rng = generator_for(task.frame.lineage, task.round, site.config.name, "body")
    steps = episodic_steps(site, task)
    return train_body(body, accepted.anchor, site.train.x, site.train.y, episodic, steps, rng)


def _settings(body: Body | None, frame: Frame) -> tuple[Body, HeadConfig, EpisodesConfig]:
    """The body and the settings of a request that has one."""
    assert body is not None
    assert frame.head is not None
    assert frame.episodic is not None
    return body, _with_pairs(frame.head, frame.episodes), frame.episodic


def _with_pairs(config: HeadConfig, pairs: int) -> HeadConfig:
    return config if config.pairs == pairs else replace(config, pairs=pairs)
