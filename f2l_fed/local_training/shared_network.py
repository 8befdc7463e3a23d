"""A network that all sites share, head and all, and a site's own network made of it.

Where labels mean the same everywhere, most of what tells sites apart is how often each label
comes. A site that adds the log of its label frequencies to the output bias, while it trains and
when it predicts, leaves the shared network free of them: it is trained to say what an input looks
like, and the bias says what is likely here. The bias is taken off before anything leaves, so that
networks of different sites can be averaged.

Reference:
    Ren et al.: Balanced meta-softmax for long-tailed visual recognition, arXiv 2007.10740. Chen,
    Chao: On bridging generic and personalized federated learning for image classification, arXiv
    2107.00778.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.local_training.config import Recipe, SharedConfig
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import probe_update
from f2l_fed.local_training.selection import select
from f2l_fed.targets.target import Target


def label_shift(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """(K,) float32, the log of smoothed label frequencies, less its largest value.

    Args:
        y: (n,) int64 labels.
        classes: K.
        smoothing: Examples of every class that are added.

    >>> label_shift(torch.tensor([0, 0, 0, 1]), 3, 0.5).exp()
    tensor([1.0000, 0.4286, 0.1429])
    """
    logs = (torch.bincount(y, minlength=classes) + smoothing).log()
    return logs - logs.max()


def shifted(target: Target, weights: Tensor, shift: Tensor) -> Tensor:
    """(D,) float32, a network with a shift on its output bias; as it is where it has no bias.

    Args:
        target: The network.
        weights: (D,) float32; not changed.
        shift: (K,) float32; its negative takes it off again.
    """
    moved = weights.clone()
    if target.output_bias is not None:
        target.layout.unflatten(moved)[target.output_bias].add_(shift)
    return moved


def few_examples(y: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Draws up to so many examples, whatever their labels: they keep the site's label mix.

    Args:
        y: (n,) int64 labels.
        most: Number of examples.
        rng: Draws them.

    Returns:
        (m,) int64 indices into ``y``, in ascending order.
    """
    return torch.randperm(len(y), generator=rng)[:most].sort().values


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingSite:
    """A site's examples and their label mix, for all that it makes of a shared network.

    Args:
        target: The network.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Settings.
    """

    target: Target
    x: Tensor
    y: Tensor
    config: SharedConfig

    @property
    def shift(self) -> Tensor:
        """(K,) float32, see `label_shift`."""
        return label_shift(self.y, self.target.classes, self.config.smoothing)

    def update(self, start: Tensor, rng: torch.Generator) -> Tensor:
        """(D,) float32, the shared network after the site's passes, its label mix taken off."""
        recipe = self.config.update_recipe(len(self.y))
        first = shifted(self.target, start, self.shift)
        made = finetune(self.target, first, self.x, self.y, recipe, rng)
        return shifted(self.target, made, -self.shift)

    def context(self, start: Tensor, rows: Tensor, recipe: Recipe) -> Tensor:
        """(D,) float32, the change by a few steps on some of the examples.

        Args:
            start: (D,) float32, the shared network.
            rows: (m,) int64, which examples.
            recipe: Number of full-batch steps, learning rate, momentum.
        """
        x, y = self.x[rows], self.y[rows]
        mix = label_shift(y, self.target.classes, self.config.smoothing)
        return probe_update(self.target, shifted(self.target, start, mix), x, y, recipe)

    def start(
        self, candidates: Mapping[str, Tensor], returned: Tensor | None
    ) -> tuple[str, Tensor]:
        """The start of the site's own network, with its label mix, and the kind it is of.

        Args:
            candidates: (D,) float32 by kind, shared networks; the one with the lowest loss on the
                examples counts.
            returned: (D,) float32, the update that the site has returned last; None where it has
                returned none.
        """
        here = {kind: shifted(self.target, w, self.shift) for kind, w in candidates.items()}
        kind, best = next(iter(here.items()))
        if len(here) > 1:
            kind, best = select(self.target, here, self.x, self.y)
        if returned is not None:
            own = shifted(self.target, returned, self.shift)
            best = torch.lerp(best, own, self.config.mix)
        return kind, best

    def own_network(self, start: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
        """(D,) float32, the site's own network: its `start` after steps that grow smaller."""
        return finetune(self.target, start, self.x, self.y, recipe, rng, falling=True)
