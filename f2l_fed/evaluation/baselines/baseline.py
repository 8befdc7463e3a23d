"""The interface of a baseline: the work it is given, its settings, what it learns and offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.local_training.finetune import STEPS, accuracy_after
from f2l_fed.local_training.probe import anchor
from f2l_fed.targets import Target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import cut, with_classes

NUMBER_BYTES = 4
"""Size of a number in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSite:
    """One site that takes part in rounds.

    Args:
        name: Its name, for its random streams.
        x: (n, *input_shape) float32.
        y: (n,) int64, its own labels.
    """

    name: str
    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonWork:
    """The work that every baseline gets, and the method itself: equal in all that costs anything.

    Args:
        lineage: The federation's lineage, for random streams.
        body: The network as body and head, the latter for the most classes that a site has.
        sites: The training sites.
        rounds: Number of rounds.
        episodes: Local steps of a round, size of an episode, momentum, turns and inversion; the
            learning rate is each baseline's own.
        head: Strengths of heads that a held-out site solves; that towards zero is each baseline's.
        local: Steps of a held-out site; their learning rate is each baseline's own.
        shared_labels: Whether all sites have the same classes.
    """

    lineage: str
    body: Body
    sites: tuple[TrainingSite, ...]
    rounds: int
    episodes: EpisodesConfig
    head: HeadConfig
    local: Recipe
    shared_labels: bool = False

    @property
    def network(self) -> Target:
        """The whole network, for the most classes."""
        return self.body.network

    def body_of(self, site: HeldOutSite) -> Body:
        """The body under a head for a site's own classes."""
        return self.body if self.shared_labels else with_classes(self.body, site.classes)

    def cut(self, weights: Tensor, site: HeldOutSite) -> Tensor:
        """A whole network, (D,) float32, without the outputs for classes that a site lacks."""
        own, (body, head) = self.body_of(site), self.body.split(weights)
        return own.join(body, cut(head, self.body.head.layout, own.network.classes))

    @property
    def start(self) -> Tensor:
        """(D,) float32, the network that all sites start from, with a zero head."""
        return anchor(self.network, self.lineage)

    def steps(self, number: int) -> int:
        """Local steps of a site in a round."""
        return self.episodes.first if number == 1 else self.episodes.steps

    def turning(self, turns: bool) -> CommonWork:
        """The same work, with turns and inversion only where a baseline wants them, too."""
        own = self.episodes
        both = {"turns": own.turns and turns, "inversion": own.inversion and turns}
        return replace(self, episodes=replace(own, **both))

    def batch(self, site: TrainingSite) -> int:
        """Examples in a step, as many as an episode of a site has."""
        classes = self.network.classes if self.shared_labels else len(site.y.unique())
        return classes * (self.episodes.support + self.episodes.query)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a baseline that are chosen on sites apart (docs/measurements.md).

    Args:
        lr: Learning rate of the training sites.
        local_lr: Learning rate of a held-out site's steps, by arm.
        strength: Of a head that a held-out site solves, times the number of its examples.
        inner_lr: Learning rate inside an episode, where there are steps inside it.
        inner_steps: Number of these steps.
        turns: Whether its training turns and inverts images where the work does.
    """

    lr: float
    local_lr: Mapping[str, float] = field(default_factory=dict)
    strength: float = 0.25
    inner_lr: float = 0.05
    inner_steps: int = 1
    turns: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of one arm at a held-out site.

    Args:
        weights: (D,) float32, the whole network.
        pull: Strength of the local steps' pull to it; see `finetune.iterates`.
    """

    weights: Tensor
    pull: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a baseline to a training site.

    Args:
        bytes_up: Sent by a site in a round.
        bytes_down: Received by it.
        local_steps: Gradient steps of a site in all rounds.
    """

    bytes_up: int
    bytes_down: int
    local_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline as a record of functions.

    Args:
        key: Its name.
        arms: Keys of its arms in `f2l_fed.evaluation.arm_names`.
        settings: As chosen.
        train: Work and settings to the numbers that the federation has learnt, float32.
        starts: Work, settings, these numbers and a held-out site to the start of each arm.
        cost: The cost of the work.
    """

    key: str
    arms: tuple[str, ...]
    settings: Settings
    train: Callable[[CommonWork, Settings], Tensor]
    starts: Callable[[CommonWork, Settings, Tensor, HeldOutSite], dict[str, Start]]
    cost: Callable[[CommonWork, Settings], Cost]


def curves(
    baseline: Baseline,
    work: CommonWork,
    starts: Mapping[str, Start],
    site: HeldOutSite,
    steps: tuple[int, ...] = STEPS,
) -> dict[str, list[float]]:
    """Test accuracy of a baseline's arms after each number of local steps, at one site.

    Args:
        baseline: The baseline.
        work: Its work.
        starts: Its starts at this site, by arm.
        site: The site.
        steps: Numbers of steps after which to measure.
    """
    return {
        arm: accuracy_after(
            work.body_of(site).network,
            start.weights,
            site.train,
            site.test,
            replace(work.local, lr=baseline.settings.local_lr.get(arm, work.local.lr)),
            generator_for(work.lineage, site.name, "local"),
            steps,
            pull=start.pull,
        )
        for arm, start in starts.items()
    }
