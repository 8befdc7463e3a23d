"""Adaptation of the generator to one task by recall of another site's network.

Research only: no round and no service uses it.

A task outside what the training sites know is shown by one site. Its probe and its network, after
a few local steps, are kept as they are. When a new probe resembles that one, with its labels in
the order that suits it best, what the generator expects is moved most of the way to the kept
network; when it does not, nothing is touched. It is the recall of one record, gated by the
similarity of two probes: a nonparametric form of fine-tuning the generator.

Fine-tuning the parameters would say less. With a single site, a gradient step on a linear prior is
a rank-one kernel update: it moves what is expected of *every* task a little, for all probes have
much in common, and of this one too little (`tests/benchmarks/adaptation.py` measures it).

What is recalled is three quarters of one site's own network. It may only be kept from sites that
agree to hand it to others.

Reference:
    Pritzel et al.: Neural episodic control, arXiv 1703.01988 (a memory of few, fast values beside
    a slowly learned function). Graves et al.: Neural Turing machines, arXiv 1410.5401, section 3.3
    (content addressing by cosine similarity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.core.validation import require
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.selection import select
from f2l_fed.symmetry.assignment import assignment
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallConfig:
    """Settings of the weight of a remembered task.

    Args:
        share: How far what is expected is moved to a memory of the same task; 1 is all the way.
        low: Up to this cosine of the probes a memory has no weight.
        high: From this cosine on it has its whole share; linear between both.
    """

    share: float = 0.75
    low: float = 0.5
    high: float = 0.75

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, self, "share", "> 0 and <= 1")
        require(-1 <= self.low < 1, self, "low", ">= -1 and < 1")
        require(self.low < self.high <= 1, self, "high", "above low and <= 1")

    def weight(self, cosine: Tensor) -> Tensor:
        """The weight of a memory by the cosine of the probes; elementwise.

        >>> RecallConfig().weight(torch.tensor([0.5, 0.625, 0.9]))
        tensor([0.0000, 0.3750, 0.7500])
        """
        return self.share * ((cosine - self.low) / (self.high - self.low)).clamp(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedTask:
    """One task as a site has shown it.

    Args:
        context: (D,) float32, its probe from the generator's anchor.
        weights: (D,) float32, its network after a few local steps.
    """

    context: Tensor
    weights: Tensor

    def for_labels_of(self, context: Tensor, symmetry: OutputSymmetry) -> RememberedTask:
        """The memory with its labels in the order that suits a probe best.

        Args:
            context: (D,) float32, the probe.
            symmetry: Whether labels may change places; the trivial one leaves them as they are.
        """
        if not symmetry.classes:
            return self
        similarity = context[symmetry.output].double() @ self.context[symmetry.output].double().T
        order = assignment(similarity, maximize=True)

        def relabelled(network: Tensor) -> Tensor:
            network = network.clone()
            network[symmetry.output] = network[symmetry.output[order]]
            return network

        return RememberedTask(context=relabelled(self.context), weights=relabelled(self.weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The most similar remembered task for each of n probes.

    Args:
        weights: (n, D) float32, the network of the most similar memory, in the probe's labels.
        cosine: (n,) float32, of both probes.
    """

    weights: Tensor
    cosine: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallingGenerator:
    """A generator with what single sites have shown it since.

    Args:
        generator: The generator.
        memories: Of the tasks that it was adapted to, made with probes from its anchor.
        config: Their weight.
    """

    generator: Generator
    memories: tuple[RememberedTask, ...]
    config: RecallConfig = field(default_factory=RecallConfig)

    def expect(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, D) expected weights.

        Where no memory is similar enough these are the generator's own, bit for bit.
        """
        expected = self.generator.expect(contexts)
        if not self.memories:
            return expected
        recalled = self.recall(contexts)
        return expected.lerp(recalled.weights, self.config.weight(recalled.cosine)[:, None])

    def recall(self, contexts: Tensor) -> Recall:
        """The memory most similar to each of (n, D) probe updates; there must be one at least."""
        nearest = [self._nearest(context) for context in contexts]
        return Recall(
            weights=torch.stack([memory.weights for memory, _ in nearest]),
            cosine=torch.stack([cosine for _, cosine in nearest]),
        )

    def _nearest(self, context: Tensor) -> tuple[RememberedTask, Tensor]:
        symmetry = self.generator.prior.symmetry
        found = [memory.for_labels_of(context, symmetry) for memory in self.memories]
        cosines = functional.cosine_similarity(
            context[None], torch.stack([memory.context for memory in found])
        )
        best = int(cosines.argmax())
        return found[best], cosines[best]


def remember(
    target: Target,
    context: Tensor,
    candidates: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    rng: torch.Generator,
    *,
    keep: int,
) -> RememberedTask:
    """Makes the memory of a site's task from its examples.

    Args:
        target: The network.
        context: (D,) float32, the site's probe (`f2l_fed.local_training.probe.probe_update`).
        candidates: (D,) float32 by kind, the site's candidates for that probe
            (`f2l_fed.generator.candidates.candidates_for_service`).
        x: (n, *input_shape) float32.
        y: (n,) int64.
        recipe: The local steps.
        rng: Draws their batches.
        keep: So many of the best draws are averaged, as in
            `f2l_fed.local_training.selection.select`.
    """
    _, start = select(target, candidates, x, y, keep=keep)
    return RememberedTask(context=context, weights=finetune(target, start, x, y, recipe, rng))
