"""The answers of a site with a privacy budget, in place of its networks and probes.

The site keeps the network that it has chosen and fine-tuned without noise: that one never leaves.
What leaves is made again by differentially private descent from the prior's start, which the
server knows beforehand, so that no choice tells of the examples; and of the numbers only those
that would be the same without them. A probe is paid for once per anchor.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import torch
from torch import Tensor

from clients.site.privacy_budget import Budget
from clients.training.accepted_request import AcceptedRequest
from clients.training.probe_cache import digest_of, read_probes, write_probes
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.candidate_kinds import ANCHOR, PRIOR
from f2l_fed.local_training.config import Recipe
from f2l_fed.privacy import dp_sgd
from f2l_fed.wire.messages import ProbeRequest, Task, Update

PRIVATE_PROBE = "private-probe.safetensors"
"""Name of the file in the state folder."""


def private_probes(accepted: AcceptedRequest[ProbeRequest | Task], budget: Budget) -> Tensor:
    """(E, D) float32, one noised probe on all training examples, the same for every episode.

    Raises:
        PolicyRefusal: If the budget does not reach for it.
    """
    frame = accepted.request.frame
    probe = _cached_probe(accepted)
    if probe is None:
        noise = budget.spend([(1.0, frame.probe.steps)])
        probe = _make_probe(accepted, noise)
    return probe.expand(frame.episodes, -1).clone()


def private_update(accepted: AcceptedRequest[Task], budget: Budget) -> tuple[Update, float]:
    """One noised change, added to the prior's start of every episode, and its Euclidean length.

    Raises:
        PolicyRefusal: If the budget does not reach for it, or the server sent no prior.
    """
    site, task = accepted.site, accepted.request
    count, recipe = len(site.train.y), task.recipe
    episodes = task.candidates or ({ANCHOR: accepted.first_anchor},)
    kind = PRIOR if task.candidates else ANCHOR
    if shared := task.frame.shared:
        # Without the site's label mix, which would be in every gradient and tell of all examples.
        episodes, kind, recipe = ({ANCHOR: accepted.anchor},), ANCHOR, shared.update_recipe(count)
    if any(kind not in candidates for candidates in episodes):
        raise PolicyRefusal("no-start-without-choice")
    probe = _cached_probe(accepted)
    parts = [(dp_sgd.sampling_rate(recipe, count), recipe.steps)]
    if probe is None:
        parts.append((1.0, task.frame.probe.steps))
    noise = budget.spend([(rate, steps) for rate, steps in parts if steps])
    if probe is None:
        probe = _make_probe(accepted, noise)
    change = _noised_change(accepted, episodes[0][kind], recipe, noise)
    update = Update(
        site=site.config.name,
        round=task.round,
        chosen=(kind,) * len(episodes),
        weights=torch.stack([candidates[kind] + change for candidates in episodes]),
        probes=probe.expand(task.frame.episodes, -1).clone(),
        numbers={"examples": float(count), **({} if shared else {"steps": float(recipe.steps)})},
    )
    return update, float(change.double().norm())


def _noised_change(
    accepted: AcceptedRequest[ProbeRequest | Task], start: Tensor, recipe: Recipe, noise: float
) -> Tensor:
    site = accepted.site
    return dp_sgd.private_update(
        accepted.target,
        start,
        site.train.x,
        site.train.y,
        recipe,
        noise_multiplier=noise,
        max_norm=site.config.privacy.max_norm,
        rng=torch.Generator().manual_seed(secrets.randbits(63)),
    )


def _cached_probe(accepted: AcceptedRequest[ProbeRequest | Task]) -> Tensor | None:
    """(D,) float32, the probe that was made from the same anchor; None where there is none."""
    return read_probes(accepted.site.state / PRIVATE_PROBE, _digest(accepted))


def _make_probe(accepted: AcceptedRequest[ProbeRequest | Task], noise: float) -> Tensor:
    """(D,) float32, a new probe, which is kept."""
    probe = _noised_change(accepted, accepted.anchor, _probe_recipe(accepted), noise)
    write_probes(accepted.site.state / PRIVATE_PROBE, probe, _digest(accepted))
    return probe


def _digest(accepted: AcceptedRequest[ProbeRequest | Task]) -> str:
    description = f"{accepted.target.layout.digest} {_probe_recipe(accepted)}"
    return digest_of(description, [accepted.anchor])


def _probe_recipe(accepted: AcceptedRequest[ProbeRequest | Task]) -> Recipe:
    """The probe's recipe on all examples at once."""
    return replace(accepted.request.frame.probe, batch=0)
