"""Networks that are to be good and new: ours, a published sampler's, and what is simpler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import process_time

import torch
from torch import Tensor

from f2l_fed.audit.diagnostics import leave_one_out_distances
from f2l_fed.core.random_streams import generator_for
from f2l_fed.generator.unconditional import UnconditionalConfig, fit_unconditional
from tests.benchmarks import published
from tests.benchmarks.unconditional import DRAWN, Zoo, timed

SPREADS = (0.5, 0.7, 0.9, 1.1, 1.3)
"""Of normal draws in the latents, which has 1."""
NOISES = (0.3, 0.6, 0.89, 1.2)
"""Distances of a record with noise."""
FEW = 4

_PARTS = 8
_STEPS = 50
_FLOOR = 0.05
"""Least variance of a part of the mixture in a whitened latent."""

Arm = tuple[str, Tensor, float]


class Arms:
    """The rows of the table, each with its networks and the CPU time of one in seconds.

    Args:
        zoo: What to learn from.
        lengths: Numbers of training steps of the published sampler, rising.
        images: (n, F) float32, what the networks were trained on; only to show a way to cheat.
        names: Of the random streams.
    """

    def __init__(
        self, zoo: Zoo, lengths: Sequence[int], images: Tensor, names: tuple[str | int, ...]
    ) -> None:
        self.zoo, self.lengths, self.images, self.names = zoo, lengths, images, names
        began = process_time()
        rng = generator_for(*names, "fit")
        self.fitted = fit_unconditional(zoo.seen, zoo.target, UnconditionalConfig(), rng)
        self.seconds = process_time() - began
        self.seen = self.fitted.form(zoo.seen)
        self.apart = float(leave_one_out_distances(self.seen).median())

    def all(self) -> Iterator[Arm]:
        """The rows, in order."""
        zoo, rng = self.zoo, generator_for(*self.names, "arms")
        yield "trained, held out", self.fitted.form(zoo.held_out), zoo.seconds
        yield "generated", *timed(lambda: self.fitted.sample(DRAWN, rng))
        yield "flow, as drawn", *timed(lambda: self._flow(rng))
        for spread in SPREADS:
            yield f"normal x{spread}, solved", *timed(partial(self._normal, spread, rng))
        yield "normal, as drawn", *timed(lambda: self._decoded(self._latents(rng)))
        mixture = Mixture.of(self.fitted.codec.encode(self.seen), rng)
        yield "mixture, as drawn", *timed(lambda: self._decoded(mixture.sample(DRAWN, rng)))
        yield "mixture, solved", *timed(lambda: self._solved(mixture.sample(DRAWN, rng)))
        yield from self._published()
        for name, draw in self._nulls(rng).items():
            yield name, *timed(draw)

    def noisy(self, away: Tensor, rng: torch.Generator, basis: Tensor | None = None) -> Tensor:
        """Records with noise of given lengths, (DRAWN,); perhaps only along (k, F) directions."""
        noise = torch.randn(DRAWN, self.seen.shape[1], generator=rng)
        if basis is not None:
            units = self._first(noise)
            held = torch.zeros_like(noise)
            self._first(held).copy_(units @ basis.T @ basis)
            noise = held
        return self._two(rng)[0] + away.float()[:, None] * noise / noise.norm(dim=1, keepdim=True)

    def felt(self, weights: Tensor, root: Tensor) -> Tensor:
        """Weights whose distances are those of what units receive; (n, D) float32 to the same.

        Args:
            weights: Of perceptrons.
            root: (F, F) float32, a root of the inputs' second moment.
        """
        changed = weights.clone()
        self._first(changed).copy_(self._first(weights) @ root)
        return changed

    def _first(self, weights: Tensor) -> Tensor:
        """(n, h, F) view of the weights of the first layer."""
        hidden, inputs = self.zoo.target.layout.shapes[0]
        return weights[:, : hidden * inputs].view(-1, hidden, inputs)

    def _latents(self, rng: torch.Generator) -> Tensor:
        return torch.randn(DRAWN, self.fitted.codec.shape.size, generator=rng)

    def _decoded(self, latents: Tensor) -> Tensor:
        return self.fitted.codec.decode(latents)

    def _solved(self, latents: Tensor) -> Tensor:
        assert self.fitted.heads is not None
        return self.fitted.heads(self._decoded(latents))

    def _normal(self, spread: float, rng: torch.Generator) -> Tensor:
        return self._solved(spread * self._latents(rng))

    def _flow(self, rng: torch.Generator) -> Tensor:
        return replace(self.fitted, heads=None).sample(DRAWN, rng)

    def _published(self) -> Iterator[Arm]:
        if not self.lengths:
            return
        mean = self.seen.mean(0)
        left, values, axes = torch.linalg.svd(self.seen - mean, full_matrices=False)
        latents, axes = (left * values)[:, :-1], axes[:-1]
        rng = generator_for(*self.names, "published")
        for steps, field in published.train(latents, self.lengths, rng).items():
            began = process_time()
            ends = published.sample(field, len(axes), DRAWN, rng)
            seconds = (process_time() - began) / DRAWN
            yield f"DeepWeightFlow, {steps} steps", mean + ends @ axes, seconds

    def _two(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        seen = self.seen
        first = torch.randint(len(seen), (DRAWN,), generator=rng)
        other = torch.randint(1, len(seen), (DRAWN,), generator=rng)
        return seen[first], seen[(first + other) % len(seen)]

    def _by_neuron(self, count: int, rng: torch.Generator) -> Tensor:
        """Each hidden unit from one of several records, whose units have the same places."""
        layout = self.zoo.target.layout
        split = zip(self.seen.split(layout.sizes, dim=1), layout.shapes, strict=True)
        into, bias, out, last = (part.unflatten(1, shape) for part, shape in split)
        picked = torch.rand(DRAWN, len(self.seen), generator=rng).argsort(1)[:, :count]
        choice = torch.randint(count, (DRAWN, len(into[0])), generator=rng)
        owner, unit = picked.gather(1, choice), torch.arange(len(into[0]))
        chosen = into[owner, unit], bias[owner, unit], out.mT[owner, unit].mT, last[picked].mean(1)
        return torch.cat([part.flatten(1) for part in chosen], dim=1)

    def _nulls(self, rng: torch.Generator) -> dict[str, Callable[[], Tensor]]:
        seen, heads = self.seen, self.fitted.heads
        assert heads is not None

        def noise(distance: float, basis: Tensor | None = None) -> Tensor:
            return self.noisy(torch.full((DRAWN,), distance * self.apart), rng, basis)

        silent = torch.linalg.eigh(self.images.T @ self.images)[1].T[: self.images.shape[1] // 2]
        return {
            **{f"record + noise {far}": partial(noise, far) for far in NOISES},
            "record + noise .89, solved": lambda: heads(noise(0.89)),
            "record + noise .89, unseen": lambda: noise(0.89, silent),
            "random mix of two": lambda: torch.lerp(
                *self._two(rng), torch.rand(DRAWN, 1, generator=rng)
            ),
            "neurons of two": lambda: self._by_neuron(2, rng),
            f"neurons of {FEW}": lambda: self._by_neuron(FEW, rng),
            f"neurons of {FEW}, solved": lambda: heads(self._by_neuron(FEW, rng)),
            "mean network": lambda: seen.mean(0, keepdim=True),
            "mean network, solved": lambda: heads(seen.mean(0, keepdim=True)),
        }


class Mixture:
    """A mixture of normals with diagonal covariances, by expectation and maximisation.

    Args:
        shares: (k,) float32.
        means: (k, size) float32.
        variances: (k, size) float32.
    """

    def __init__(self, shares: Tensor, means: Tensor, variances: Tensor) -> None:
        self.shares, self.means, self.variances = shares, means, variances

    @classmethod
    def of(cls, latents: Tensor, rng: torch.Generator) -> Mixture:
        """Fits it to (n, size) latents, starting at some of them."""
        means = latents[torch.randperm(len(latents), generator=rng)[:_PARTS]]
        found = cls(torch.full((_PARTS,), 1 / _PARTS), means, torch.ones_like(means))
        for _ in range(_STEPS):
            share = found._logs(latents).softmax(1)
            weight = share.sum(0)[:, None].clamp(min=1e-6)
            means = share.T @ latents / weight
            squares = share.T @ latents.square() / weight - means.square()
            found = cls(weight[:, 0] / len(latents), means, squares.clamp(min=_FLOOR))
        return found

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draws (count, size) latents."""
        part = self.shares.multinomial(count, replacement=True, generator=rng)
        noise = torch.randn(count, self.means.shape[1], generator=rng)
        return self.means[part] + self.variances[part].sqrt() * noise

    def _logs(self, latents: Tensor) -> Tensor:
        off = (latents[:, None] - self.means).square() / self.variances + self.variances.log()
        return self.shares.log() - off.sum(2) / 2
