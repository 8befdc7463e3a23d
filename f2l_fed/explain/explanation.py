"""The explanation of a generated network: shares of sites, nearness to records, changes.

Where labels have no shared order, networks and probes are compared in the order that fits best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.explain.attribution import Attribution, RefinementStep
from f2l_fed.symmetry.assignment import assignment
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.layout import WeightLayout

EXPECTED = "expected"
"""Name of the network that the prior predicts, among those that are explained together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteShare:
    """One site's part in a network.

    Args:
        site: Its name.
        share: Of what was learned: the part that its updates add, projected on the whole; signed.
        probe_distance: From the network's probe to the site's nearest one.
        distance: From the network to the site's nearest record.
    """

    site: str
    share: float
    probe_distance: float
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestRecord:
    """The nearest record of another site.

    Args:
        site: The site of the record.
        distance: Euclidean distance of the network to it; 0 for a copy.
        percentile: Of that distance among those of every site's own record to the nearest one of
            another site, from 0 to 100.
    """

    site: str
    distance: float
    percentile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The parts of a generated network.

    Args:
        probe: Euclidean length of the site's own probe, the way from the anchor.
        learned: Length of what the prior adds to it.
        shares: Of every site in what was learned, the largest first whatever the sign.
        remainder: What these shares lack to 1; no more than rounding.
        nearest: By name of a network.
    """

    probe: float
    learned: float
    shares: tuple[SiteShare, ...]
    remainder: float
    nearest: Mapping[str, NearestRecord]


def explain(
    steps: Sequence[RefinementStep],
    attribution: Attribution,
    networks: Mapping[str, Tensor],
    *,
    site: str = "",
) -> Explanation:
    """Explains the candidates of a site.

    Args:
        steps: All releases that made the prior, oldest first.
        attribution: The prediction as a sum.
        networks: (D,) float32 by name: the prediction as `EXPECTED`, and what was drawn around it.
        site: The site, for nearness to its own records is no sign of a copy; "" if it has no
            records.
    """
    symmetry, expected = steps[-1].fit.prior.symmetry, networks[EXPECTED]
    newest = {name: (step, row) for step in steps for row, name in enumerate(step.sites)}
    probes = torch.stack([step.contexts[row] for step, row in newest.values()])
    records = torch.stack([step.weights[row] for step, row in newest.values()])
    learned = (expected - attribution.anchor - attribution.probe).double()
    whole = learned.square().sum().clamp(min=1e-30)
    columns = (
        torch.stack([attribution.learned[name] @ learned / whole for name in newest]),
        distances(symmetry, attribution.probe, probes),
        distances(symmetry, expected, records),
    )
    shares = [
        SiteShare(site=name, share=share, probe_distance=probe_distance, distance=distance)
        for name, share, probe_distance, distance in zip(
            newest, *(column.tolist() for column in columns), strict=True
        )
    ]
    return Explanation(
        probe=float(attribution.probe.norm()),
        learned=float(learned.norm()),
        shares=tuple(sorted(shares, key=lambda one: -abs(one.share))),
        remainder=1 - sum(one.share for one in shares),
        nearest=_nearest(symmetry, networks, site, list(newest), records),
    )


def _nearest(
    symmetry: OutputSymmetry,
    networks: Mapping[str, Tensor],
    site: str,
    sites: Sequence[str],
    records: Tensor,
) -> dict[str, NearestRecord]:
    def to_others(network: Tensor, own: str) -> Tensor:
        apart = distances(symmetry, network, records)
        return apart.masked_fill(torch.tensor([name == own for name in sites]), torch.inf)

    baseline = torch.stack(
        [to_others(rows[0], own).min() for own, rows in zip(sites, records, strict=True)]
    )
    found = {name: to_others(network, site).min(0) for name, network in networks.items()}
    return {
        name: NearestRecord(
            site=sites[int(nearest.indices)],
            distance=float(nearest.values),
            percentile=100 * float((baseline < nearest.values).double().mean()),
        )
        for name, nearest in found.items()
    }


def distances(symmetry: OutputSymmetry, network: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance from a network, or a probe, to the nearest one of every site.

    Args:
        symmetry: Whether labels may be put in the order that fits best.
        network: (D,) float32.
        others: (n, E, D) float32.

    Returns:
        (n,) float64; exactly 0 for a copy.
    """
    rows = others.flatten(0, 1)
    if symmetry.classes:
        output = rows[:, symmetry.output]
        costs = torch.cdist(network[symmetry.output].double(), output.double()).square()
        order = torch.stack([assignment(cost) for cost in costs])
        rows = rows.clone()
        rows[:, symmetry.output] = output.gather(1, order[:, :, None].expand_as(output))
    apart: Tensor = torch.linalg.vector_norm(rows.double() - network.double(), dim=1)
    return apart.view(len(others), -1).min(dim=1).values


def relative_changes(
    layout: WeightLayout, before: Tensor, after: Tensor
) -> dict[str, float | None]:
    """Relative change of every tensor of a network.

    Args:
        layout: Names and shapes.
        before: (D,) float32.
        after: (D,) float32.

    Returns:
        ‖after - before‖ / ‖before‖ by name; None where all was zero before.

    >>> layout = WeightLayout(("w", "b"), ((2,), (1,)))
    >>> relative_changes(layout, torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 3.0, 1.0]))
    {'w': 0.2, 'b': None}
    """
    old = layout.unflatten(before.double())
    moved = layout.unflatten(after.double() - before)
    return {
        name: float(moved[name].norm() / tensor.norm()) if tensor.any() else None
        for name, tensor in old.items()
    }
