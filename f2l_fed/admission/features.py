"""Figures of a submission that can be compared with other sites', whatever their labels mean.

A site's probe is what a few steps on its own data do to the anchor. An honest update comes from
the same data, so in the output layer it points the same way, and that of a good start, which
training makes surer. The cosine with both together is far above zero, while a flipped, random,
permuted or borrowed update has none or a negative one. It costs a few inner products and needs no
data at the server. A single short update is mostly the chance of its batches, so it is the mean
over the episodes that is compared. Below the output layer honest updates of later rounds often go
against the probe, so nothing is made of that. Lengths tell the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from f2l_fed.admission.submission import Submission, SubmissionId
from f2l_fed.admission.weight_sketch import WeightSketch

NORM, PROBE, SPREAD = "norm", "probe", "spread"
HEAD, HEAD_CHANGE = "head", "head_change"
LAYER = "layer."
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What is remembered of a submission.

    Args:
        origin: Where it comes from.
        values: (m,) float64 by name, one for each network, or (1,) for all of them.
        signatures: (m, S) float32, of the networks; see `WeightSketch.signature`.
        lengths: (m,) float32, how far each signature is from the start's.
        directions: (m, 256) float32, sketches of the updates' hidden part, of length 1.
    """

    origin: SubmissionId
    values: Mapping[str, Tensor]
    signatures: Tensor
    lengths: Tensor
    directions: Tensor


def extract_features(submission: Submission, anatomy: WeightSketch) -> Features:
    """Measures a submission of finite numbers in the right form.

    Logarithms of lengths, cosines as they are.
    """
    updates, probes = submission.updates, submission.paired_probes
    expected = [_unit(anatomy.rows(each)) for each in (probes, submission.starts)]
    layers = anatomy.layer_norms(updates)
    lengths = layers.square().sum(dim=1).sqrt().clamp(min=_LEAST)
    values = {
        NORM: lengths.log(),
        PROBE: probes.double().norm(dim=1).clamp(min=_LEAST).log(),
        HEAD: _cosine(anatomy.rows(submission.weights), anatomy.rows(probes)),
        HEAD_CHANGE: _cosine(_mean(anatomy.rows(updates)), _mean(*expected)),
    }
    logs = layers.clamp(min=_LEAST).log()
    values |= {f"{LAYER}{index}": log for index, log in enumerate(logs.T)}
    signatures = anatomy.signature(submission.weights)
    directions = anatomy.sketch(updates)
    return Features(
        origin=submission.origin,
        values=values,
        signatures=signatures,
        lengths=(signatures - anatomy.signature(submission.starts)).norm(dim=1),
        directions=directions / directions.norm(dim=1, keepdim=True).clamp(min=_LEAST),
    )


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a.double(), b.double(), dim=1, eps=_LEAST)


def _mean(*parts: Tensor) -> Tensor:
    """(m, n) each to (1, n): their sum, averaged over the networks."""
    return torch.stack(parts).sum(dim=0).mean(dim=0, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=_LEAST)
    return unit


def spread_of(logits: Tensor) -> Tensor:
    """How far outputs differ from input to input, (m, n, K) logits to (m,) float64.

    >>> from torch import ones
    >>> spread_of(ones(1, 4, 3)).item()
    0.0
    """
    logits = logits.double()
    return (logits - logits.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2)).sqrt()
