"""Settings of what a site does with its own examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from f2l_fed.core.validation import positive, require, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent with momentum.

    Args:
        steps: Number of gradient steps.
        lr: Learning rate.
        momentum: Heavy-ball momentum in [0, 1).
        batch: Examples a step; 0 takes all of them in every step.
        max_gradient_norm: Euclidean length that a longer gradient is shortened to; 0 for none.
            Without it, a few steep steps can leave a network with the same answer to everything.

    Reference:
        Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks.
        ICML 2013, algorithm 1.
    """

    steps: int
    lr: float = 0.05
    momentum: float = 0.9
    batch: int = 0
    max_gradient_norm: float = 5.0

    def __post_init__(self) -> None:
        require(self.steps >= 0, self, "steps", ">= 0")
        positive(self, "lr")
        share(self, "momentum")
        require(self.batch >= 0, self, "batch", ">= 0")
        finite = 0 <= self.max_gradient_norm < math.inf
        require(finite, self, "max_gradient_norm", ">= 0, finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """Settings of a site's context.

    Args:
        episodes: Probes of a training site, each on its own draw of examples, and with each one
            network that it fine-tunes in a round.
        anchors: Anchors of a lineage: after every release the mean network becomes the next one,
            until there have been as many. Probes of different anchors can't be compared; from the
            last one on, releases refine each other.
        shots: Support examples per class.
        steps: Full-batch gradient steps from the anchor.
        lr: Learning rate.
        momentum: Heavy-ball momentum.
    """

    episodes: int = 4
    anchors: int = 3
    shots: int = 5
    steps: int = 10
    lr: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        positive(self, "episodes", "anchors", "shots", "steps", "lr")
        share(self, "momentum")

    @property
    def recipe(self) -> Recipe:
        """The gradient steps of a probe as a recipe."""
        return Recipe(steps=self.steps, lr=self.lr, momentum=self.momentum)
