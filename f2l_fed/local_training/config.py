"""Settings of what a site does with its own examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from f2l_fed.core.validation import finite, positive, require, share

TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)
"""Temperatures at which sites measure, in ascending order."""

LOSSES = tuple(f"loss_at_{temperature:g}" for temperature in TEMPERATURES)
"""Names of the losses at them, as numbers of an update."""


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
        finite(self, "max_gradient_norm")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodesConfig:
    """Settings of the body's episodic training at the sites.

    Args:
        first: Episodic steps of a site in the first round, from random weights.
        steps: Episodic steps in every later round.
        support: Examples per class that the head of an episode is solved on.
        query: Further examples per class that its loss is measured on.
        lr: Learning rate.
        momentum: Heavy-ball momentum, new in every round.
        max_gradient_norm: Euclidean length that a longer gradient is shortened to; 0 for none.
        turns: Turn the images of a whole episode by the same quarter turns, drawn anew each time.
        inversion: Invert the images of every second episode, at random.
    """

    first: int = 60
    steps: int = 30
    support: int = 5
    query: int = 10
    lr: float = 0.05
    momentum: float = 0.9
    max_gradient_norm: float = 5.0
    turns: bool = True
    inversion: bool = True

    def __post_init__(self) -> None:
        positive(self, "support", "query", "lr")
        require(self.first >= 0, self, "first", ">= 0")
        require(self.steps >= 0, self, "steps", ">= 0")
        share(self, "momentum")
        finite(self, "max_gradient_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """Settings of logistic heads; the penalty of a head of n examples has strength / n.

    Args:
        pairs: Pairs of heads that a training site makes in a round, one on few and one on all of
            its examples; of images over the eight fixed turns, else over support sets.
        context: Of a site's context, a head on few examples, towards zero.
        target: Of the head on all of a training site's examples, towards zero; not divided by n.
        pull: Of a site's own head, towards the generated one.
        step_pull: Of the gradient steps after that, towards their start.
    """

    pairs: int = 8
    context: float = 0.25
    target: float = 0.001
    pull: float = 2.5
    step_pull: float = 25.0

    def __post_init__(self) -> None:
        positive(self, "pairs", "context", "target", "pull")
        finite(self, "step_pull")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedConfig:
    """Settings of a network that all sites share, head and all, since labels mean the same.

    Args:
        smoothing: Examples of every class that are added to a site's own before frequencies are
            taken.
        epochs: Passes over a site's examples, from the shared network, whose end it returns.
        lr: Learning rate of these.
        batch: Examples a step, of these and of the site's own network.
        max_gradient_norm: Euclidean length that a longer gradient is shortened to; 0 for none.
        mix: Share of the network that a site returned last in its own one, after the early rounds;
            the rest is the shared network that came of all.
        own_epochs: Further passes of the site's own network.
        own_lr: Learning rate of these, which falls to zero.
        early_rounds: Rounds after which there are others in their place.
        early_epochs: The passes after one of these rounds.
        early_lr: Their learning rate, which falls to zero.
        most_steps: Largest number of steps of all passes together, at sites with many examples.
        step: Length of the server's step along the mean change; what sites get is the mean itself.
        acceleration: Share of the server's last step, from where it was before, by which the next
            passes start ahead.
    """

    smoothing: float = 0.5
    epochs: int = 1
    lr: float = 0.3
    batch: int = 10
    max_gradient_norm: float = 5.0
    mix: float = 0.5
    own_epochs: int = 2
    own_lr: float = 0.2
    early_rounds: int = 5
    early_epochs: int = 5
    early_lr: float = 0.2
    most_steps: int = 1000
    step: float = 1.5
    acceleration: float = 0.5

    def __post_init__(self) -> None:
        positive(self, "smoothing", "epochs", "lr", "batch", "own_lr", "early_lr", "step")
        share(self, "acceleration")
        for name in ("own_epochs", "early_rounds", "early_epochs", "most_steps"):
            require(getattr(self, name) >= 0, self, name, ">= 0")
        require(0 <= self.mix <= 1, self, "mix", ">= 0 and <= 1")
        finite(self, "max_gradient_norm")

    def update_recipe(self, examples: int) -> Recipe:
        """The steps of a site's part in a round, by the number of its examples."""
        return self._recipe(examples, self.epochs, self.lr)

    def is_early(self, release: str) -> bool:
        """Whether a release is one of the early rounds', or none."""
        return not (release.isdecimal() and int(release) > self.early_rounds)

    def own_recipe(self, examples: int, release: str) -> Recipe:
        """The steps of a site's own network from a release; their learning rate falls to zero."""
        if not self.is_early(release):
            return self._recipe(examples, self.own_epochs, self.own_lr)
        return self._recipe(examples, self.early_epochs, self.early_lr)

    def _recipe(self, examples: int, epochs: int, lr: float) -> Recipe:
        return Recipe(
            steps=min(epochs * math.ceil(examples / self.batch), self.most_steps),
            lr=lr,
            momentum=0.0,
            batch=self.batch,
            max_gradient_norm=self.max_gradient_norm,
        )
