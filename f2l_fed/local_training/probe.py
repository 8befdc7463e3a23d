"""The probe of a site, its context: a few gradient steps from a network that both sides know.

The first anchor is rebuilt from the lineage by site and server; later ones are the mean of the
networks that came back (`recentred`), whose features tell far more of a task than random ones.
An anchor's output layer is zero: the network then treats all outputs alike, and permuting the
labels of a task permutes its probe (`f2l_fed.symmetry.output_permutation`). The first step from
there is the table of class means in the anchor's features, so the probe contains the well-known
class prototypes, as a parameter update.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import require_labels
from f2l_fed.core.random_streams import generator_for
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.targets.body import Body
from f2l_fed.targets.target import Target


def anchor(target: Target, lineage: str) -> Tensor:
    """The anchor of a lineage: a common start with a zero output layer.

    Returns:
        (D,) float32, equal wherever the same target and lineage are used.
    """
    return recentred(target, target.initialise(generator_for(lineage, "anchor")))


def first_anchor(network: Target, body: Body | None, lineage: str) -> Tensor:
    """The first anchor of a lineage, or its first body: the anchor without the head.

    Returns:
        (D,) float32, or (B,) with a body.
    """
    whole = anchor(network, lineage)
    return whole if body is None else body.split(whole)[0]


def recentred(target: Target, mean: Tensor) -> Tensor:
    """An anchor from a mean network, with a zero output layer.

    Returns:
        (D,) float32.
    """
    tensors = target.layout.unflatten(mean.clone())
    tensors[target.output_weight].zero_()
    if target.output_bias is not None:
        tensors[target.output_bias].zero_()
    return target.layout.flatten(tensors)


def support_set(y: Tensor, shots: int, rng: torch.Generator) -> Tensor:
    """Draws up to ``shots`` examples of every class.

    Args:
        y: (n,) int64 labels.
        shots: Examples per class.
        rng: Draws them.

    Returns:
        (m,) int64 indices into ``y``, in ascending order.
    """
    require_labels(y, y.numel() if isinstance(y, Tensor) else 0)
    order = torch.randperm(len(y), generator=rng)
    chosen = [order[y[order] == label][:shots] for label in y.unique().tolist()]
    return torch.cat(chosen).sort().values


def probe_update(target: Target, anchored: Tensor, x: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """GD(anchor; support set) - anchor, with full-batch steps.

    Args:
        target: The network.
        anchored: (D,) float32, the anchor.
        x: (m, *input_shape) float32, support examples.
        y: (m,) int64.
        recipe: Number of steps, learning rate, momentum; its batch is ignored.

    Returns:
        (D,) float32.
    """
    full = replace(recipe, batch=0)
    return finetune(target, anchored, x, y, full, torch.Generator()) - anchored
