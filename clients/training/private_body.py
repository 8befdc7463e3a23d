"""The update of a site with a privacy budget where all sites share a body: the body, noised.

No head leaves: it would be made of few examples in features of the server's choice. The site makes
its own on the release's body, and its network never leaves.
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

from clients.site.privacy_budget import Budget
from clients.training.accepted_request import AcceptedRequest, body_of, episodic_steps
from f2l_fed.errors import PolicyRefusal
from f2l_fed.privacy.episodic_dp import require_no_statistics, train_body_privately
from f2l_fed.wire.messages import Task, Update


def private_update_on_body(
    accepted: AcceptedRequest[Task], budget: Budget
) -> tuple[Update, tuple[float, ...]]:
    """The update of a site with a privacy budget, and the length of the body's change.

    Raises:
        PolicyRefusal: If the budget does not reach for it, or the noised body overflows.
        TargetError: If the body has batch normalisation.
    """
    site, task = accepted.site, accepted.request
    trained = _noised_body(accepted, budget)
    # Of the noised body alone, so the refusal tells no more than it would.
    if not bool(trained.isfinite().all()):
        raise PolicyRefusal("diverged")
    no_heads = torch.zeros(0, accepted.target.layout.size)
    update = Update(
        site=site.config.name,
        round=task.round,
        chosen=(),
        weights=no_heads,
        probes=no_heads,
        numbers={"examples": float(len(site.train.y)), "steps": float(task.recipe.steps)},
        body=trained,
    )
    return update, (float((trained.double() - accepted.anchor.double()).norm()),)


def _noised_body(accepted: AcceptedRequest[Task], budget: Budget) -> Tensor:
    """(B,) float32, the body after private steps that the budget has paid for."""
    site, episodic = accepted.site, accepted.request.frame.episodic
    # Its episodes are counted by the most classes of a site: the site's own number is private.
    body = body_of(accepted.request.frame)
    assert body is not None
    assert episodic is not None
    require_no_statistics(body)
    steps = episodic_steps(site, accepted.request)
    if not steps:
        return accepted.anchor.clone()
    # All examples take part in every step.
    noise = budget.spend([(1.0, steps)])
    return train_body_privately(
        body,
        accepted.anchor,
        site.train.x,
        site.train.y,
        episodic,
        steps,
        lr=site.config.privacy.body_lr,
        noise_multiplier=noise,
        max_norm=site.config.privacy.max_norm,
        rng=torch.Generator().manual_seed(secrets.randbits(63)),
    )
