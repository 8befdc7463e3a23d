"""The interface of a baseline for shared labels: its work, its settings and what its sites get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.evaluation.baselines.baseline import NUMBER_BYTES, TrainingSite
from f2l_fed.local_training.probe import anchor
from f2l_fed.targets import Target

MEASURED = (1, 3, 5, 10, 17)
"""Rounds after which sites are measured; so are they after the last one."""

Networks = Iterator[tuple[int, Tensor]]
"""Number of a round, and (S, D) float32, the network that each site has after it."""


def measured_rounds(rounds: int) -> tuple[int, ...]:
    """The rounds after which sites are measured, out of so many.

    >>> measured_rounds(8)
    (1, 3, 5, 8)
    """
    return tuple(sorted({*(number for number in MEASURED if number <= rounds), rounds}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalisedWork:
    """The work that every baseline gets, equal in sites, network, examples and rounds.

    Args:
        lineage: The federation's lineage, for the start and the random streams.
        network: The network.
        sites: The S training sites.
        rounds: Number of rounds, one local epoch each.
        measured: Rounds after which the sites' networks are wanted.
        batch: Examples of a gradient step.
        max_gradient_norm: Euclidean length that a longer gradient is shortened to.
    """

    lineage: str
    network: Target
    sites: tuple[TrainingSite, ...]
    rounds: int
    measured: tuple[int, ...]
    batch: int = 10
    max_gradient_norm: float = 5.0

    @property
    def start(self) -> Tensor:
        """(D,) float32, the network that all sites start from, with a zero head."""
        return anchor(self.network, self.lineage)

    @property
    def starts(self) -> Tensor:
        """(S, D) float32, the start for every site."""
        return self.spread(self.start)

    @property
    def head(self) -> Tensor:
        """(D,) bool, the numbers of the last linear layer."""
        layout = self.network.layout
        own = (self.network.output_weight, self.network.output_bias)
        named = zip(layout.names, layout.sizes, strict=True)
        return torch.cat([torch.full((size,), name in own) for name, size in named])

    @property
    def steps_of_epoch(self) -> float:
        """Gradient steps of one epoch, the mean over sites."""
        return sum(-(-len(site.y) // self.batch) for site in self.sites) / len(self.sites)

    def spread(self, weights: Tensor) -> Tensor:
        """One network for every site: (D,) to (S, D)."""
        return weights.repeat(len(self.sites), 1)

    def mean(self, networks: Tensor) -> Tensor:
        """The mean over sites, weighted by their numbers of examples: (S, D) to (D,)."""
        counts = torch.tensor([float(len(site.y)) for site in self.sites])
        return (counts / counts.sum()) @ networks


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalisedSettings:
    """The settings of a baseline that are chosen on seeds apart (docs/measurements.md).

    Args:
        lr: Learning rate of the local epoch of a round.
        epochs: Local epochs after a round for the site's own network, which nobody else gets;
            see `own_networks`.
        own_lr: Their learning rate, which falls to zero over them.
        momentum: Share of the server's last change that precedes a round.
        server_lr: Factor of the server's change.
        server_steps: Steps of a network at the server in a round.
        pull: Strength of the pull to another network.
        mixing_lr: Learning rate of the weights between two networks.
        received: Whether a site's own network is the one it begins the next round with, instead of
            the one after its local epoch.
    """

    lr: float
    epochs: int = 0
    own_lr: float = 0.0
    momentum: float = 0.0
    server_lr: float = 1.0
    server_steps: int = 1
    pull: float = 0.0
    mixing_lr: float = 1.0
    received: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalisedBaseline:
    """A baseline for shared labels as a record of functions.

    Args:
        key: Its name, as in `f2l_fed.evaluation.arm_names`.
        settings: As chosen.
        train: Work and settings to the sites' networks after the measured rounds, before local
            epochs for them alone.
        epochs: Local epochs of a round that its settings ask for, counted in gradient steps.
        sent: Numbers that a site receives, and sends, in a round.
    """

    key: str
    settings: PersonalisedSettings
    train: Callable[[PersonalisedWork, PersonalisedSettings], Networks]
    epochs: float
    sent: Callable[[PersonalisedWork], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalisedCost:
    """The cost of a baseline to a training site, the mean over sites.

    Args:
        bytes_up: Sent by a site in a round.
        bytes_down: Received by it.
        steps: Gradient steps of a round.
        own_steps: Further gradient steps after a round for the site's own network.
    """

    bytes_up: int
    bytes_down: int
    steps: float
    own_steps: float


def cost_of_baseline(baseline: PersonalisedBaseline, work: PersonalisedWork) -> PersonalisedCost:
    """The cost of a baseline with its settings."""
    size = NUMBER_BYTES * baseline.sent(work)
    return PersonalisedCost(
        bytes_up=size,
        bytes_down=size,
        steps=baseline.epochs * work.steps_of_epoch,
        own_steps=baseline.settings.epochs * work.steps_of_epoch,
    )


def all_numbers(work: PersonalisedWork) -> int:
    """The numbers of a whole network."""
    return work.network.layout.size


def body_numbers(work: PersonalisedWork) -> int:
    """The numbers of a network without its head."""
    return int((~work.head).sum())


def no_numbers(_work: PersonalisedWork) -> int:
    """None at all."""
    return 0
