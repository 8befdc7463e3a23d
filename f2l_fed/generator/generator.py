"""The generator: prior, codec and flow as one value that makes networks from contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f2l_fed.codec import Codec
from f2l_fed.core.placement import moved, placed
from f2l_fed.flow import SOURCES, VelocityField, begin, guided, solve
from f2l_fed.generator.config import GeneratorConfig, SampleConfig
from f2l_fed.prior.families import FamilyShares
from f2l_fed.prior.linear_prior import Prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Bodies:
    """The bodies of a release, or the whole networks where all sites share one.

    Args:
        own: (B,) float32, the body that its heads belong to, or the shared network; sites get it.
        next: (B,) float32, the average of what the sites made of a body; they train it further,
            and make the heads of the next release on it. Of a shared network, where the sites'
            next passes and contexts start, ahead of it.
    """

    own: Tensor
    next: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The families of a mixed fleet besides the largest, whose generator holds them.

    Args:
        shares: Of all families, the largest first, given a context.
        others: A generator for each of the others, with the same anchor and settings.
    """

    shares: FamilyShares
    others: tuple[Generator, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Makes networks for contexts.

    Args:
        prior: Expected weights, given the context.
        codec: Weights to latents and back.
        velocity: The flow's field.
        spread: (k,) float32, width of the source around the prior.
        mean: (D,) float32, aggregate of the networks it was fitted on.
        config: As fitted.
        bodies: The bodies that heads are generated on, or the shared networks; else None.
        fleet: Where networks are of several families, the others; all above is then of the
            largest. Else None.
    """

    prior: Prior
    codec: Codec
    velocity: VelocityField
    spread: Tensor
    mean: Tensor
    config: GeneratorConfig
    bodies: Bodies | None = None
    fleet: Fleet | None = None

    @property
    def device(self) -> torch.device:
        """The device of its tensors and of all that it makes; contexts have to be there, too."""
        return self.mean.device

    def to(self, device: torch.device) -> Generator:
        """The same generator on a device."""
        return self if device == self.device else placed(self, device)

    @property
    def members(self) -> tuple[Generator, ...]:
        """A generator for each family, the largest first; itself alone where there is one."""
        return (self,) if self.fleet is None else (replace(self, fleet=None), *self.fleet.others)

    def expect(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, D) expected weights, of the likeliest family each."""
        if self.fleet is None:
            return self.prior(contexts)
        likeliest = self.fleet.shares(contexts).argmax(1)
        return self._by_family(likeliest, contexts, lambda member, rows: member.prior(rows))

    def centres(self, context: Tensor, expected: Tensor, count: int) -> Tensor:
        """The expected weights that draws for one context are made around.

        Args:
            context: (D,) float32.
            expected: (D,) float32, what is expected in its family; of a known site, without it.
            count: Number of draws.

        Returns:
            (count, D) float32: ``expected`` each time, or what each family's prior expects, in
            the share of the family that the context says.
        """
        if self.fleet is None:
            return expected.expand(count, -1)
        each = torch.cat([member.prior(context[None]) for member in self.members])
        each[self.family_of(expected[None])] = expected
        numbers = _portions(self.fleet.shares(context[None])[0], count)
        return each.repeat_interleave(numbers, 0)

    def family_of(self, weights: Tensor) -> Tensor:
        """(n,) int64, the family in ``members`` whose mean is nearest to each of (n, D) weights."""
        if self.fleet is None:
            return torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        split = self.prior.symmetry.split
        means = split(torch.stack([member.mean for member in self.members])).common
        # Differences first: distances between basins are small beside the norms in wide networks.
        near = [(split(weights).common - mean).square().sum(1) for mean in means]
        return torch.stack(near).argmin(0)

    def _by_family(
        self, families: Tensor, rows: Tensor, make: Callable[[Generator, Tensor], Tensor]
    ) -> Tensor:
        """(n, D), each row made from that of ``rows`` by the member of its family."""
        made = torch.empty_like(rows)
        for family, member in enumerate(self.members):
            own = families == family
            if bool(own.any()):
                made[own] = make(member, rows[own])
        return made

    @torch.no_grad()
    def sample(
        self, expected: Tensor, rng: torch.Generator, config: SampleConfig | None = None
    ) -> Tensor:
        """Draws one network for each row of expected weights.

        What the prior predicts outside the latent space is kept: the flow moves the latent only.

        Args:
            expected: (n, D) float32 from `expect`; repeat a row to draw several for one context.
            rng: Draws the source.
            config: Overrides the generator's own.

        Returns:
            (n, D) float32; the same bits for equal inputs on the same build.
        """
        if self.fleet is not None:
            families = self.family_of(expected)
            return self._by_family(families, expected, lambda m, own: m.sample(own, rng, config))
        return self.carry(expected, self.noise(len(expected), rng), config)

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        """(count, k) float32, what `sample` draws; the same generator state, the same noise.

        It is drawn on the CPU, whatever the device. Of the largest family, as `carry` is.
        """
        drawn = SOURCES[self.config.flow.source].noise(count, self.codec.shape, rng, None)
        return moved(drawn, self.device)

    def carry(self, expected: Tensor, noise: Tensor, config: SampleConfig | None = None) -> Tensor:
        """`sample` with (m n, k) noise that is given, m rows for each of n expected networks.

        It is differentiable in all that it is made from.
        """
        config = config or self.config.sample
        context = self.codec.encode(expected)
        if (times := len(noise) // max(1, len(expected))) > 1:
            context, expected = (t.repeat_interleave(times, 0) for t in (context, expected))
        start = begin(
            self.config.flow.source, context, self.spread, noise, temperature=config.temperature
        )
        # A field that was fitted without any context knows nothing to be guided by.
        guidance = config.guidance if self.config.flow.dropout < 1 else 0.0
        end = solve(
            guided(self.velocity, context, guidance=guidance),
            start,
            solver=config.solver,
            evaluations=config.evaluations,
        )
        return expected + self.codec.displacement(context, end)


def _portions(shares: Tensor, count: int) -> Tensor:
    """(m,) int64 with the sum ``count``, as near to (m,) shares as whole numbers can be."""
    wanted = shares * count
    numbers = wanted.floor().long()
    left = count - int(numbers.sum())
    numbers[(wanted - numbers).argsort(descending=True, stable=True)[:left]] += 1
    return numbers
