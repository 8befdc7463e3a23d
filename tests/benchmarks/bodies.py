"""Rounds of a shared body in one process: a site's training and the server's average, no messages.

It calls what sites and server call, in the order in which they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import load_dataset, partition
from f2l_fed.local_training.adapted_network import adapted_head, head_pairs
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig
from f2l_fed.local_training.episodic import train_body
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.probe import first_anchor
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from server.federation.body_updates import BodyUpdate
from server.generator.next_body import next_body
from tests.benchmarks.common import SEPARATE_SPLIT

SITES, HELD_OUT, ROUNDS = 40, 40, 8

Examples = tuple[Tensor, Tensor]

Training = Callable[[int, int, Tensor], Tensor]
"""From the number of a site, the number of the round and the body, what the site makes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """Sites with few classes each, and the body that they share.

    Args:
        lineage: Name of all random draws.
        body: The body.
        sites: Examples of the training sites.
        held_out: By kind, examples and test examples of sites that never train.
    """

    lineage: str
    body: Body
    sites: Sequence[Examples]
    held_out: Mapping[str, Sequence[tuple[Examples, Examples]]]
    episodes: EpisodesConfig = EpisodesConfig()
    head: HeadConfig = HeadConfig()
    shots: int = 5

    @classmethod
    def of(cls, seed: int, data: str, *, sites: int = SITES, held_out: int = HELD_OUT) -> FewShot:
        """Divides data sets, whose names are separated by commas."""
        pool = [load_dataset(name) for name in data.split(",")]
        divided = partition(
            "few-shot", pool, sites=sites, held_out=held_out, seed=seed, config=SEPARATE_SPLIT
        )
        name = FederationConfig().target.name
        return cls(
            lineage=f"{name}/{seed}",
            body=Body.of(build_target(name, divided.input_shape, divided.classes)),
            sites=[_tensors(site.x_train, site.y_train) for site in divided.sites],
            held_out={
                kind: [
                    (_tensors(one.x_train, one.y_train), _tensors(one.x_test, one.y_test))
                    for one in some
                ]
                for kind, some in divided.held_out.items()
                if some
            },
        )

    @property
    def first(self) -> Tensor:
        """(B,) float32, the lineage's first body."""
        return first_anchor(self.body.network, self.body, self.lineage)

    def trained(self, site: int, number: int, weights: Tensor) -> Tensor:
        """(B,) float32, what a site without a privacy budget makes of a body in a round."""
        x, y = self.sites[site]
        steps = self.episodes.first if number == 1 else self.episodes.steps
        rng = generator_for(self.lineage, number, f"site-{site:03d}", "body")
        return train_body(self.body, weights, x, y, self.episodes, steps, rng)

    def rounds(
        self,
        train: Training,
        lie: Callable[[int, Tensor, list[Tensor]], list[Tensor]] | None = None,
        count: int = ROUNDS,
        *,
        robust: bool = True,
    ) -> Tensor:
        """(B,) float32, the body after some rounds.

        Args:
            train: The training of one site.
            lie: From the number of the round, the body and the honest results, those that are
                sent; None where nobody lies.
            count: Rounds.
            robust: Whether the server's own average is taken; else the plain mean.
        """
        weights, config = self.first, FederationConfig().aggregate
        for number in range(1, count + 1):
            results = [train(site, number, weights) for site in range(len(self.sites))]
            if lie is not None:
                results = lie(number, weights, results)
            if not robust:
                weights = torch.stack(results).mean(0)
                continue
            updates = [
                BodyUpdate(site=f"site-{site:03d}", round=number, body=result)
                for site, result in enumerate(results)
            ]
            weights = next_body(weights, updates, config, first=self.first)
        return weights

    def pairs(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(n, E, H) float32 each: contexts and heads of all training sites."""
        made = [
            head_pairs(
                self.body, weights, x, y, self.head, self.episodes, self.shots, self._draws(site)
            )
            for site, (x, y) in enumerate(self.sites)
        ]
        return torch.stack([one.few for one in made]), torch.stack([one.all for one in made])

    def accuracies(
        self, weights: Tensor, generate: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, list[float]]:
        """Accuracy at every held-out site, at zero steps, by kind.

        Args:
            weights: (B,) float32.
            generate: (n, H) contexts to generated heads; None for the logistic head alone.
        """
        return {
            kind: [self._accuracy(weights, generate, *one) for one in some]
            for kind, some in self.held_out.items()
        }

    def _accuracy(
        self,
        weights: Tensor,
        generate: Callable[[Tensor], Tensor] | None,
        train: Examples,
        test: Examples,
    ) -> float:
        head = adapted_head(self.body, weights, None, *train, self.head)
        if generate is not None:
            generated = generate(head[None])[0]
            head = adapted_head(self.body, weights, generated, *train, self.head)
        network = self.body.join(weights, head)
        return loss_and_accuracy(self.body.network, network, *test)[1]

    def _draws(self, site: int) -> Callable[[int], torch.Generator]:
        return lambda pair: generator_for(self.lineage, f"site-{site:03d}", "probe", pair)


def _tensors(x: object, y: object) -> Examples:
    return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
