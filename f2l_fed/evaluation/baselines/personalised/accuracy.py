"""The personalised accuracy of a round: each site's own network on its own test examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalisedAccuracy:
    """The accuracy of all training sites after a round.

    Args:
        sites: Accuracy of each site's own network on its own test examples, in [0, 1].
        examples: Number of these examples.
    """

    sites: tuple[float, ...]
    examples: tuple[int, ...]

    @property
    def plain(self) -> float:
        """The mean over sites."""
        return fmean(self.sites)

    @property
    def weighted(self) -> float:
        """The mean over test examples, as PFLlib reports it."""
        return fmean(self.sites, self.examples)


def personalised_accuracy(
    network: Target, networks: Tensor, tests: Sequence[tuple[Tensor, Tensor]]
) -> PersonalisedAccuracy:
    """Measures the sites' own networks.

    Args:
        network: The architecture.
        networks: (S, D) float32, one network a site.
        tests: Test examples of every site: (m, *input_shape) float32 and (m,) int64.

    >>> PersonalisedAccuracy(sites=(1.0, 0.5), examples=(10, 30)).weighted
    0.625
    """
    both = zip(networks, tests, strict=True)
    return PersonalisedAccuracy(
        sites=tuple(loss_and_accuracy(network, own, *test)[1] for own, test in both),
        examples=tuple(len(y) for _, y in tests),
    )
