"""What a site with a privacy budget sends instead of its networks.

The site keeps the network that it has chosen and fine-tuned without noise: that one never leaves.
What leaves is made again by differentially private descent from the prior's start, which the
server knows beforehand, so that no choice tells of the examples; and of the numbers only those
that would be the same without them. A probe is paid for once an anchor.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import torch
from torch import Tensor

from clients.site.privacy_budget import Budget
from clients.site.site import Site
from clients.training.probe_cache import anchored, digest_of, keep, read_kept
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.candidate_kinds import ANCHOR, PRIOR
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.probe import anchor
from f2l_fed.privacy.dp_sgd import private_update, sampling_rate
from f2l_fed.targets import Target
from f2l_fed.wire.messages import ProbeRequest, Task, Update

PROBE = "private-probe.safetensors"


def private_probes(site: Site, request: ProbeRequest | Task, target: Target) -> Tensor:
    """(E, D) float32, one probe on all training examples, the same for every episode.

    Raises:
        PolicyRefusal: If the budget does not reach for it.
    """
    kept = _kept(site, request, target)
    if kept is None:
        noise = _budget(site).spend([(1.0, request.frame.probe.steps)])
        kept = _make_probe(site, request, target, noise)
    return kept.expand(request.frame.episodes, -1).clone()


def private_work(site: Site, task: Task, target: Target) -> tuple[Update, float]:
    """One noised change, added to the prior's start of every episode, and its length.

    Raises:
        PolicyRefusal: If the budget does not reach for it, or the server offers no prior.
    """
    first = {ANCHOR: anchor(target, task.frame.lineage)}
    episodes = task.candidates or (first,)
    kind = PRIOR if task.candidates else ANCHOR
    if any(kind not in offered for offered in episodes):
        raise PolicyRefusal("no-start-without-choice")
    kept, train = _kept(site, task, target), site.train
    parts = [(sampling_rate(task.recipe, len(train.y)), task.recipe.steps)]
    if kept is None:
        parts.append((1.0, task.frame.probe.steps))
    noise = _budget(site).spend([(rate, steps) for rate, steps in parts if steps])
    if kept is None:
        kept = _make_probe(site, task, target, noise)
    change = _descent(site, target, episodes[0][kind], task.recipe, noise)
    update = Update(
        site=site.config.name,
        round=task.round,
        chosen=(kind,) * len(episodes),
        weights=torch.stack([offered[kind] + change for offered in episodes]),
        probes=kept.expand(task.frame.episodes, -1).clone(),
        numbers={"examples": float(len(train.y)), "steps": float(task.recipe.steps)},
    )
    return update, float(change.double().norm())


def _budget(site: Site) -> Budget:
    return Budget(config=site.config.privacy, state=site.state)


def _full(probe: Recipe) -> Recipe:
    return replace(probe, batch=0)


def _descent(site: Site, target: Target, start: Tensor, recipe: Recipe, noise: float) -> Tensor:
    rng = torch.Generator().manual_seed(secrets.randbits(63))
    return private_update(
        target,
        start,
        site.train.x,
        site.train.y,
        recipe,
        noise_multiplier=noise,
        max_norm=site.config.privacy.max_norm,
        rng=rng,
    )


def _kept(site: Site, request: ProbeRequest | Task, target: Target) -> Tensor | None:
    """The probe that was made from the same anchor, if it is still there."""
    return read_kept(site.state / PROBE, _made_from(request, target))


def _make_probe(site: Site, request: ProbeRequest | Task, target: Target, noise: float) -> Tensor:
    """A new one, which is kept."""
    recipe = _full(request.frame.probe)
    made = _descent(site, target, anchored(request, target), recipe, noise)
    keep(site.state / PROBE, made, _made_from(request, target))
    return made


def _made_from(request: ProbeRequest | Task, target: Target) -> str:
    about = f"{target.layout.digest} {_full(request.frame.probe)}"
    return digest_of(about, [anchored(request, target)])
