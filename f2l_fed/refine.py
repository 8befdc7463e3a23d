"""Refining a generator by the updates that came back from the networks it made.

A site that got θ = g(context, noise) and fine-tuned it to θ' has told in which direction its true
loss falls at θ: θ' - θ. The vector-Jacobian product of g with this update is the direction for
everything that g is made of: the prior's maps, the velocity field through every evaluation of the
solver, and the codec. Nothing but updated parameters is needed for it. The noise is the one that
the network was really drawn with, so networks for one context go on to differ: each is pulled to
where its own site took it, and not all to their mean.

The prior has the same rule in closed form (`f2l_fed.prior.refine_prior`).

Reference:
    Shamsian et al.: Personalized federated learning using hypernetworks, arXiv 2103.04628,
    equation 3.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from f2l_fed.artifact import tensors_of
from f2l_fed.generator import Generator
from f2l_fed.rules import positive, require

PARTS = ("prior", "velocity", "codec")
"""What a generator can be refined in."""

_SMALLEST = 1e-2
"""What a tensor that starts at zero is measured by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """How a generator follows the updates.

    Args:
        steps: Largest number of steps, each with all updates.
        rate: Length of a step, relative to the root mean square of what it moves.
        parts: Those of `PARTS` that move.
        held_out: Share of the sites whose updates judge and do not teach.
        check_every: Steps between two looks at these.
        patience: Looks without a better one after which it ends.
    """

    steps: int = 100
    rate: float = 1e-3
    parts: tuple[str, ...] = PARTS
    held_out: float = 0.2
    check_every: int = 5
    patience: int = 4

    def __post_init__(self) -> None:
        positive(self, "rate", "check_every", "patience")
        require(self.steps >= 0, self, "steps", ">= 0")
        require(bool(self.parts) and set(self.parts) <= set(PARTS), self, "parts", f"of {PARTS}")
        require(0 < self.held_out < 1, self, "held_out", "> 0 and < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What n networks of one generator became.

    Args:
        contexts: (n, D) float32, the probe that each was made for.
        expected: (n, D) float32, what it was drawn around: the prior's prediction, without the
            records of the site itself if it has some.
        noise: (n, k) float32, what it was drawn with (`f2l_fed.generator.Generator.noise`).
        weights: (n, D) float32, what its site made of it.
    """

    contexts: Tensor
    expected: Tensor
    noise: Tensor
    weights: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Returned:
        return Returned(
            contexts=self.contexts[rows],
            expected=self.expected[rows],
            noise=self.noise[rows],
            weights=self.weights[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """A refined generator.

    Args:
        generator: With what was best for the sites kept aside.
        before: Their mean squared update, per weight: how far they went from what they got.
        after: The same distance from what they would get now.
        step: Where that was reached; 0 if nothing was better, and the generator is the same.
    """

    generator: Generator
    before: float
    after: float
    step: int


def pull_back(
    generator: Generator, returned: Returned, updates: Tensor, parts: tuple[str, ...] = PARTS
) -> dict[str, Tensor]:
    """The vector-Jacobian product of the drawn networks with their updates.

    Args:
        generator: What drew them.
        returned: Contexts, expectations and noise; the weights are not looked at.
        updates: (n, D) float32.
        parts: Those of `PARTS` to differentiate in.

    Returns:
        The direction of steepest ascent of ``sum(networks * updates)`` for every tensor of these
        parts, by the names of `f2l_fed.artifact.tensors_of`.
    """
    moving = _Moving.copy_of(generator, returned, parts)
    return moving.pull_back(updates)


def refine(
    generator: Generator,
    returned: Returned,
    config: RefineConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
) -> Refinement:
    """Moves a generator to where sites took its networks, as far as sites kept aside gain by it.

    Args:
        generator: What drew the networks.
        returned: What became of them, site by site; of two sites at least.
        config: How far, and in what.
        rng: Draws the sites that are kept aside.
        group: Consecutive networks that belong to one site.
    """
    order = torch.randperm(len(returned.weights) // group, generator=rng)
    count = min(max(1, round(config.held_out * len(order))), len(order) - 1)
    rows = order[:, None] * group + torch.arange(group)
    kept, rest = returned[rows[:count].flatten()], returned[rows[count:].flatten()]
    moving = _Moving.copy_of(generator, rest, config.parts)
    judge = _Moving(generator=moving.generator, returned=kept, base=generator.expect(kept.contexts))
    optimiser = torch.optim.Adam(
        [
            {"params": [leaf], "lr": config.rate * max(_rms(leaf), _SMALLEST)}
            for leaf in moving.leaves.values()
        ]
    )
    before = best = judge.missed()
    best_step, best_leaves = 0, moving.values()
    for step in range(1, config.steps + 1):
        with torch.no_grad():
            updates = rest.weights - moving.networks()
        for name, direction in moving.pull_back(updates).items():
            moving.leaves[name].grad = -direction / updates.numel()
        optimiser.step()
        if step % config.check_every == 0 or step == config.steps:
            now = judge.missed()
            if now < best:
                best, best_step, best_leaves = now, step, moving.values()
            elif step >= best_step + config.patience * config.check_every:
                break
    moving.set(best_leaves)
    return Refinement(generator=moving.generator, before=before, after=best, step=best_step)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moving:
    """A generator whose tensors may move, and networks that it made before they did."""

    generator: Generator
    returned: Returned
    base: Tensor
    leaves: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def copy_of(cls, generator: Generator, returned: Returned, parts: tuple[str, ...]) -> _Moving:
        base, generator = generator.expect(returned.contexts), copy.deepcopy(generator)
        leaves = {
            name: tensor.requires_grad_()
            for name, tensor in tensors_of(generator).items()
            if name.split(".")[0] in parts and tensor.is_floating_point() and tensor.numel()
        }
        return cls(generator=generator, returned=returned, base=base, leaves=leaves)

    def networks(self) -> Tensor:
        """(n, D), the networks as they would be drawn now."""
        moved = self.generator.expect(self.returned.contexts) - self.base
        return self.generator.carry(self.returned.expected + moved, self.returned.noise)

    def pull_back(self, updates: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(
            self.networks(), list(self.leaves.values()), updates, materialize_grads=True
        )
        return dict(zip(self.leaves, found, strict=True))

    @torch.no_grad()
    def missed(self) -> float:
        """Mean squared distance from what the sites made of them, per weight."""
        return float((self.returned.weights - self.networks()).square().mean())

    def values(self) -> dict[str, Tensor]:
        return {name: leaf.detach().clone() for name, leaf in self.leaves.items()}

    def set(self, values: Mapping[str, Tensor]) -> None:
        for name, leaf in self.leaves.items():
            leaf.requires_grad_(False).copy_(values[name])
