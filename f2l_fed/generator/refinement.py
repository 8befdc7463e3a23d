"""Refinement of a generator by the updates that came back from its networks.

Research only: a retraining refines the prior alone, in closed form.

A site that got θ = g(context, noise) and fine-tuned it to θ' has shown in which direction its true
loss falls at θ: θ' - θ. The vector-Jacobian product of g with this update is the direction for
everything that g is made of: the prior's maps, the velocity field through every evaluation of the
solver, and the codec. Nothing but updated parameters is needed for it. The noise is the one that
the network was really drawn with, so networks for one context go on to differ: each is pulled to
where its own site took it, and not all to their mean.

The prior has the same rule in closed form (`f2l_fed.prior.linear_prior.refine_prior`).

Reference:
    Shamsian et al.: Personalized federated learning using hypernetworks, arXiv 2103.04628,
    equation 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.core.validation import positive, require
from f2l_fed.flow.velocity_regression import validation_split
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.serialization import tensors_of

PARTS = ("prior", "velocity", "codec")
"""Parts of a generator that can be refined."""

_TRIES = 12
_SMALLEST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """Settings of the refinement.

    Args:
        steps: Largest number of steps, each with all updates, for each part.
        length: Of a part's first step, relative to the part; later ones start at twice the last
            length. One is halved until the validation sites gain by it; if they never do, the part
            stays.
        parts: Those of `PARTS` that move, one after the other in every step.
        held_out: Share of the validation sites.
    """

    steps: int = 20
    length: float = 0.1
    parts: tuple[str, ...] = PARTS
    held_out: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "length")
        require(self.steps >= 0, self, "steps", ">= 0")
        require(bool(self.parts) and set(self.parts) <= set(PARTS), self, "parts", f"of {PARTS}")
        require(0 < self.held_out < 1, self, "held_out", "> 0 and < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedNetworks:
    """The n networks that came back for those of one generator.

    Args:
        contexts: (n, D) float32, the probe that each was made for.
        expected: (n, D) float32, the prior's prediction that it was drawn around, without the
            records of the site itself if it has some.
        noise: (n, k) float32, the noise that it was drawn with
            (`f2l_fed.generator.generator.Generator.noise`).
        weights: (n, D) float32, the network that its site returned.
    """

    contexts: Tensor
    expected: Tensor
    noise: Tensor
    weights: Tensor

    def __getitem__(self, rows: slice | Tensor) -> ReturnedNetworks:
        return ReturnedNetworks(
            contexts=self.contexts[rows],
            expected=self.expected[rows],
            noise=self.noise[rows],
            weights=self.weights[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """A refined generator.

    Args:
        generator: The one that was best for the validation sites.
        before: Their mean squared update, per weight: the distance from the old networks.
        after: The same distance from the new networks.
        steps: Steps taken; 0 if none was an improvement, and the generator is the same.
    """

    generator: Generator
    before: float
    after: float
    steps: int


def vector_jacobian_product(
    generator: Generator,
    returned: ReturnedNetworks,
    updates: Tensor,
    parts: tuple[str, ...] = PARTS,
) -> dict[str, Tensor]:
    """The vector-Jacobian product of the drawn networks with their updates.

    Args:
        generator: The generator that drew them.
        returned: Contexts, expectations and noise; the weights are not looked at.
        updates: (n, D) float32.
        parts: Those of `PARTS` to differentiate in.

    Returns:
        The direction of steepest ascent of ``sum(networks * updates)`` for every tensor of these
        parts, by the names of `f2l_fed.generator.serialization.tensors_of`.
    """
    moving = _Moving.copy_of(generator, parts)
    made = moving.networks(returned, generator.expect(returned.contexts))
    return moving.pull_back(made, updates)


def refine(
    generator: Generator,
    returned: ReturnedNetworks,
    config: RefineConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
) -> Refinement:
    """Moves a generator towards the returned networks, as far as validation sites gain by it.

    Args:
        generator: The generator that drew the networks.
        returned: What came back, site by site; of two sites at least.
        config: Settings.
        rng: Draws the validation sites.
        group: Consecutive networks that belong to one site.
    """
    validation, training = validation_split(
        len(returned.weights), config.held_out, rng, group=group
    )
    kept, rest = returned[validation], returned[training]
    moving = _Moving.copy_of(generator, config.parts)
    of_kept, of_rest = generator.expect(kept.contexts), generator.expect(rest.contexts)

    @torch.no_grad()
    def validation_error() -> float:
        return float((kept.weights - moving.networks(kept, of_kept)).square().mean())

    before = best = validation_error()
    lengths, steps = dict.fromkeys(config.parts, config.length), 0
    for _ in range(config.steps):
        for part in list(lengths):
            made = moving.networks(rest, of_rest)
            direction = moving.pull_back(made, rest.weights - made.detach(), part)
            found = moving.search(direction, lengths.pop(part), validation_error, best)
            if found is not None:
                length, best = found
                lengths[part], steps = 2 * length, steps + 1
    for leaf in moving.leaves.values():
        leaf.requires_grad_(False)
    return Refinement(generator=moving.generator, before=before, after=best, steps=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moving:
    """A generator with tensors that may move, by name."""

    generator: Generator
    leaves: dict[str, Tensor]

    @classmethod
    def copy_of(cls, generator: Generator, parts: tuple[str, ...]) -> _Moving:
        generator = copy.deepcopy(generator)
        leaves = {
            name: tensor.requires_grad_()
            for name, tensor in tensors_of(generator).items()
            if name.startswith(parts) and tensor.is_floating_point() and tensor.numel()
        }
        return cls(generator=generator, leaves=leaves)

    def networks(self, returned: ReturnedNetworks, base: Tensor) -> Tensor:
        """(n, D), the networks as they would be drawn now; the prior said (n, D) ``base``."""
        moved = self.generator.expect(returned.contexts) - base
        return self.generator.carry(returned.expected + moved, returned.noise)

    def pull_back(self, made: Tensor, updates: Tensor, part: str = "") -> dict[str, Tensor]:
        leaves = {name: leaf for name, leaf in self.leaves.items() if name.startswith(part)}
        found = torch.autograd.grad(made, list(leaves.values()), updates, materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    @torch.no_grad()
    def search(
        self,
        direction: Mapping[str, Tensor],
        length: float,
        validation_error: Callable[[], float],
        best: float,
    ) -> tuple[float, float] | None:
        """Takes the longest step that improves; its length and the new error, or None."""
        start = {name: self.leaves[name].clone() for name in direction}
        scale = _norm(start.values()) / max(_norm(direction.values()), _SMALLEST)
        for _ in range(_TRIES):
            for name, along in direction.items():
                self.leaves[name].copy_(start[name] + length * scale * along)
            if (now := validation_error()) < best:
                return length, now
            length /= 2
        for name, value in start.items():
            self.leaves[name].copy_(value)
        return None


def _norm(tensors: Iterable[Tensor]) -> float:
    return sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))
