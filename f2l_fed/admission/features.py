"""Features of a submission: figures that can be compared with other sites', whatever labels mean.

A site's probe is the change of the anchor by a few steps on its own data. An honest update comes
from the same data, so in the output layer it points the same way, and that of a good start, which
training makes surer. The cosine with both together is far above zero, while a flipped, random,
permuted or borrowed update has none or a negative one. It costs a few inner products and needs no
data at the server. A single short update is mostly the chance of its batches, so the mean over the
episodes is compared. Below the output layer honest updates of later rounds often go against the
probe, so that is not checked. Lengths are the remaining figures; those of heads for fewer classes
than others are brought to the length that as many rows would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from f2l_fed.admission.submission import Submission, SubmissionId
from f2l_fed.admission.weight_sketch import WeightSketch
from f2l_fed.targets.head_rows import present_rows

# Names of figures; history files have them too.
NORM, PROBE, SPREAD = "norm", "probe", "spread"
HEAD, HEAD_CHANGE = "head", "head_change"
LAYER = "layer."

_SMALLEST = 1e-12

_STILL = 0.01
"""Share of the start's length below which a change of a shared network counts as so long: what has
nothing left to learn moves by whatever is left, and ten times that is still nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The part of a submission that the history remembers.

    Args:
        id: The submission.
        values: (m,) float64 by name, one for each network, or (1,) for all of them.
        signatures: (m, S) float32, of the networks; see `WeightSketch.signature`.
        lengths: (m,) float32, distance of each signature from the start's.
        directions: (m, 256) float32, sketches of the updates' hidden part, of length 1.
    """

    id: SubmissionId
    values: Mapping[str, Tensor]
    signatures: Tensor
    lengths: Tensor
    directions: Tensor


def extract_features(submission: Submission, sketch: WeightSketch) -> Features:
    """Extracts the features of a submission of finite numbers in the right shapes.

    Lengths become logarithms, cosines stay as they are.
    """
    updates, probes = submission.updates, submission.paired_probes
    longer = row_factors(submission.weights, sketch)
    expected = [_unit(sketch.output_rows(each)) for each in (probes, submission.starts)]
    layers = sketch.layer_norms(updates) * longer[:, None]
    shortest = torch.full_like(layers, _SMALLEST)
    if submission.shared:
        shortest = (_STILL * sketch.layer_norms(submission.starts)).clamp(min=_SMALLEST)
    still = shortest.square().sum(dim=1).sqrt()
    lengths = torch.maximum(layers.square().sum(dim=1).sqrt(), still)
    values = {
        NORM: lengths.log(),
        PROBE: torch.maximum(longer * probes.double().norm(dim=1), still).log(),
        HEAD: _cosine(sketch.output_rows(submission.weights), sketch.output_rows(probes)),
        HEAD_CHANGE: _cosine(_mean(sketch.output_rows(updates)), _mean(*expected)),
    }
    if submission.shared:
        # The output layer is that of all sites, and its change says more of labels that are many.
        values = {name: value for name, value in values.items() if name not in (HEAD, HEAD_CHANGE)}
    logs = torch.maximum(layers, shortest).log()
    values |= {f"{LAYER}{index}": log for index, log in enumerate(logs.T)}
    signatures = sketch.signature(submission.weights)
    directions = sketch.count_sketch(updates)
    return Features(
        id=submission.id,
        values=values,
        signatures=signatures,
        lengths=(signatures - sketch.signature(submission.starts)).norm(dim=1),
        directions=directions / directions.norm(dim=1, keepdim=True).clamp(min=_SMALLEST),
    )


def row_factors(networks: Tensor, sketch: WeightSketch) -> Tensor:
    """The factor on lengths of each of (m, D) networks; (m,) float64.

    It is 1, but for heads with fewer rows than there may be.
    """
    if len(sketch.hidden):
        return torch.ones(len(networks), dtype=torch.float64)
    present = present_rows(networks[:, sketch.output])
    return (len(sketch.output) / present.double()).sqrt()


def output_spread(logits: Tensor) -> Tensor:
    """Standard deviation of outputs over inputs, (m, n, K) logits to (m,) float64.

    >>> from torch import ones
    >>> output_spread(ones(1, 4, 3)).item()
    0.0
    """
    logits = logits.double()
    return (logits - logits.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2)).sqrt()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a.double(), b.double(), dim=1, eps=_SMALLEST)


def _mean(*parts: Tensor) -> Tensor:
    """(m, n) each to (1, n): their sum, averaged over the networks."""
    return torch.stack(parts).sum(dim=0).mean(dim=0, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=_SMALLEST)
    return unit
