"""What dishonest or broken sites send instead of what honest ones do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.admission.submission import Submission
from f2l_fed.targets import Target

Attack = Callable[[Submission, Sequence[Submission], Target, torch.Generator], Submission]
"""A site's honest submission, all honest ones of its round, the network and a source of chance."""


def flipped(one, others, target, rng):
    """The update with its sign flipped."""
    return replace(one, weights=one.starts - one.updates)


def stretched(one, others, target, rng):
    """The update times ten."""
    return replace(one, weights=one.starts + 10 * one.updates)


def shrunk(one, others, target, rng):
    """A tenth of the update."""
    return replace(one, weights=one.starts + 0.1 * one.updates)


def noise(one, others, target, rng):
    """Gaussian noise as long as the update instead of it."""
    return replace(one, weights=one.starts + _as_long(one.updates, rng))


def labels_permuted(one, others, target, rng):
    """The output units in another order than in the site's own probe."""
    weights = one.weights.clone()
    for tensors in (target.layout.unflatten(row) for row in weights):
        for name in filter(None, (target.output_weight, target.output_bias)):
            tensors[name].copy_(tensors[name].roll(1, dims=0))
    return replace(one, weights=weights)


def not_a_number(one, others, target, rng):
    """One weight is NaN."""
    weights = one.weights.clone()
    weights[0, int(torch.randint(weights.shape[1], (), generator=rng))] = torch.nan
    return replace(one, weights=weights)


def constant(one, others, target, rng):
    """A network that says the same to everything: no weights in the output layer but a bias."""
    weights = one.weights.clone()
    for tensors in (target.layout.unflatten(row) for row in weights):
        tensors[target.output_weight].zero_()
        if target.output_bias is not None:
            tensors[target.output_bias].copy_(torch.arange(target.classes))
    return replace(one, weights=weights)


def copied(one, others, target, rng):
    """The networks of the site before, with a hundredth of their update as noise; own probes."""
    other = others[list(others).index(one) - 1]
    return replace(one, weights=other.weights + 0.01 * _as_long(other.updates, rng))


def copied_whole(one, others, target, rng):
    """As `copied`, with the other site's probes, starts and numbers as well."""
    other = others[list(others).index(one) - 1]
    return replace(
        other, site=one.site, weights=other.weights + 0.01 * _as_long(other.updates, rng)
    )


def idle(one, others, target, rng):
    """What was sent, with a thousandth of a real update as noise."""
    return replace(one, weights=one.starts + 0.001 * _as_long(one.updates, rng))


def sent_back(one, others, target, rng):
    """Another of the networks that were sent; the start itself where there was only one."""
    if one.others is None or not len(one.others):
        return replace(one, weights=one.starts.clone())
    return replace(one, weights=one.others[:1].expand_as(one.weights).clone())


def in_league(one, others, target, rng):
    """All liars send one direction, as long as their own update, with 5% of it as noise."""
    first = others[0].updates[:1]
    common = (
        torch.randn(first.shape, generator=torch.Generator().manual_seed(7)) * first.abs().mean()
    )
    length = one.updates.norm(dim=1, keepdim=True)
    update = common / common.norm() * length + 0.05 * _as_long(one.updates, rng)
    return replace(one, weights=one.starts + update)


def in_league_disguised(one, others, target, rng):
    """As `in_league`, but the direction is an honest site's and the probes are that site's too."""
    first = others[0]
    length = one.updates.norm(dim=1, keepdim=True)
    direction = first.updates[:1] / first.updates[:1].norm()
    update = direction * length + 0.05 * _as_long(one.updates, rng)
    probes = first.probes + 0.05 * _as_long(first.probes, rng)
    return replace(one, weights=one.starts + update, probes=probes)


def flipped_whole(one, others, target, rng):
    """As `flipped`, with the probes flipped too, so that both still agree."""
    return replace(flipped(one, others, target, rng), probes=-one.probes)


def tripled(one, others, target, rng):
    """The update times three: longer than it should be, but as long as some honest ones."""
    return replace(one, weights=one.starts + 3 * one.updates)


def tripled_but_one(one, others, target, rng):
    """As `tripled`, but one network is so long that the submission is shortened."""
    factors = torch.full((len(one.weights), 1), 3.0)
    factors[0] = 9
    return replace(one, weights=one.starts + factors * one.updates)


ATTACKS: Mapping[str, Attack] = {
    "sign flipped": flipped,
    "update x 10": stretched,
    "update x 0.1": shrunk,
    "noise of the same length": noise,
    "outputs permuted": labels_permuted,
    "NaN": not_a_number,
    "constant output": constant,
    "copied network": copied,
    "copied with its probe": copied_whole,
    "free rider": sent_back,
    "free rider with noise": idle,
    "collusion": in_league,
    "collusion with a probe": in_league_disguised,
}

HARD: Mapping[str, Attack] = {
    "update x 3": tripled,
    "update x 3, one x 9": tripled_but_one,
    "flipped with its probe": flipped_whole,
}
"""What nobody should expect admission to see; measured to know how much of it gets through."""


def _as_long(vectors: Tensor, rng: torch.Generator) -> Tensor:
    drawn = torch.randn(vectors.shape, generator=rng)
    return drawn / drawn.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)
