"""Output layers solved on synthetic inputs: what makes a drawn network as good as a trained one.

The hidden layers of a drawn network are as useful as those of trained ones, but its output layer
was drawn with them and fits them badly. So it is solved anew, by ridge regression towards the drawn
one, to say about synthetic inputs what the trained networks say on average. No data are needed,
nothing but the networks themselves.

Reference:
    Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv 1503.02531, section 2
    (matching logits).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.local_training.logistic_head import flat, rows, with_ones
from f2l_fed.targets import Target
from f2l_fed.targets.body import Body
from f2l_fed.targets.synthetic_inputs import synthetic_inputs

INPUTS = 2_000
"""Synthetic inputs; four times as many are worth a fifth of a point."""

_STRENGTH = 1e-2
"""Pull towards the drawn layer, relative to the mean square of a feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedHeads:
    """Replaces the output layers of networks by solved ones.

    Args:
        body: Parts a network into its features and its output layer.
        inputs: (m, *input_shape) float32, synthetic.
        answers: (m, K) float64, the trained networks' mean logits on them; each row sums to zero.
    """

    body: Body
    inputs: Tensor
    answers: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, target: Target, networks: Tensor, rng: torch.Generator) -> SolvedHeads:
        """Asks trained networks.

        Args:
            target: Of the networks.
            networks: (n, D) float32, n >= 1.
            rng: Draws the inputs.

        Raises:
            TargetError: If the network does anything after its last linear layer.
        """
        inputs = synthetic_inputs(target.input_shape, INPUTS, rng)
        answers = torch.zeros(len(inputs), target.classes, dtype=torch.float64)
        for network in networks:
            answers += target.logits(network, inputs)
        answers /= len(networks)
        return cls(
            body=Body.of(target), inputs=inputs, answers=answers - answers.mean(1, keepdim=True)
        )

    @torch.no_grad()
    def __call__(self, networks: Tensor) -> Tensor:
        """The networks with output layers solved on their own features; (n, D) float32 to same."""
        solved = [self._solved(network) for network in networks]
        return torch.stack(solved) if solved else networks

    def _solved(self, network: Tensor) -> Tensor:
        biased = self.body.network.output_bias is not None
        weights, head = self.body.split(network)
        drawn = rows(head, self.body.network.classes, biased).double()
        features = self.body.features(weights, self.inputs).double()
        count, size = features.shape
        strength = torch.full((size,), _STRENGTH * float(features.square().mean()))
        if biased:
            features = with_ones(features)
            # As good as free: a constant has no features to disagree with.
            strength = torch.cat([strength, strength.new_full((1,), 1e-6)])
        # A network whose units are all silent has nothing to solve.
        penalty = count * torch.diag(strength.double().clamp(min=1e-12))
        missing = features.T @ (self.answers - features @ drawn.T)
        change = torch.linalg.solve(features.T @ features + penalty, missing)
        return self.body.join(weights, flat(drawn + change.T, biased).float())
