"""Networks that differ by a reordering and rescaling of hidden units have one canonical form."""

from __future__ import annotations

from functools import cache, partial
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from f2l_fed.symmetry.channel_tracing import hidden_spaces
from f2l_fed.symmetry.hidden_units import HiddenSpace
from f2l_fed.symmetry.weight_matching import Canonicaliser
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.networks.resnet import resnet
from tests.support.small import rng, small_target

IMAGE = (1, 12, 12)


class Loop(nn.Module):
    """A layer that leads from a space of units to the same space."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 7), nn.Linear(7, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.inner(x))
        return self.last(x)


def batch_normalised():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(150, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


TARGETS = {
    "mlp": lambda: small_target(hidden=9),
    "cnn-xs": lambda: build_target("cnn-xs", IMAGE, 3),
    "cnn-s": lambda: build_target("cnn-s", (1, 20, 20), 3),
    "cnn-m": lambda: build_target("cnn-m", IMAGE, 3),
    "resnet8": lambda: build_target("resnet8", IMAGE, 3),
    "loop": lambda: Target.of("loop", Loop, (4,), 3),
    "batch-normalised": lambda: Target.of("bn", batch_normalised, IMAGE, 3),
    "resnet-bn": lambda: Target.of("r", partial(resnet, IMAGE, 3, norm=nn.BatchNorm2d), IMAGE, 3),
}
every_target = pytest.mark.parametrize("name", TARGETS)


@cache
def target_of(name):
    return TARGETS[name]()


def network(target, seed):
    """A network in which no two units are alike, not even in what a normalisation does."""
    draws = rng(seed)
    weights = target.initialise(draws)
    weights += 0.1 * torch.randn(len(weights), generator=draws)
    tensors = target.layout.unflatten(weights)
    for name in target.statistics:
        tensors[name].abs_().add_(0.5)
    return weights


def disguised(target, spaces, weights, seed):
    """The same function: every space reordered, and rescaled where it can be."""
    draws = rng(seed)
    tensors = target.layout.unflatten(weights.double())
    for space in spaces:
        noise = torch.rand(space.size, space.size, generator=draws)
        tensors = space.reorder(tensors, space.best_order(noise))
        if space.scalable:
            factor = torch.randn(space.size, generator=draws, dtype=torch.float64).exp()
            tensors = space.scale(tensors, factor)
    return target.layout.flatten(tensors)


def copies(target, weights, count):
    spaces = hidden_spaces(target)
    return torch.stack([disguised(target, spaces, weights, seed) for seed in range(count)])


def predictions(target, networks):
    x = torch.randn(3, *target.input_shape, generator=rng(9))
    return torch.stack([target.logits(weights, x) for weights in networks])


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, 30 if name in ("cnn-s", "resnet8", "resnet-bn") else 100) for name in TARGETS],
)
def test_all_disguises_of_a_network_have_one_canonical_form(name, count):
    target = target_of(name)
    canonical = Canonicaliser.of(target, network(target, 1))
    weights = network(target, 2)
    disguises = copies(target, weights, count)
    assert (disguises - weights).norm(dim=1).min() > 0.5 * weights.norm()
    forms = canonical(disguises)
    assert (forms - canonical(weights[None])).abs().max() < 1e-5
    torch.testing.assert_close(
        predictions(target, forms[:5]),
        predictions(target, weights.expand(5, -1)),
        rtol=1e-4,
        atol=1e-5,
    )


@every_target
def test_canonical_weights_are_their_own_canonical_form(name):
    target = target_of(name)
    canonical = Canonicaliser.of(target, network(target, 1))
    forms = canonical(torch.stack([network(target, seed) for seed in (2, 3)]))
    assert (canonical(forms) - forms).abs().max() < 1e-6


@every_target
def test_a_disguise_of_the_reference_becomes_the_reference(name):
    target = target_of(name)
    reference = network(target, 1)
    forms = Canonicaliser.of(target, reference)(copies(target, reference, 3))
    assert (forms - reference).abs().max() < 1e-5


@every_target
def test_canonical_weights_are_nearer_to_the_reference(name):
    target = target_of(name)
    reference, weights = network(target, 1), network(target, 2)
    (form,) = Canonicaliser.of(target, reference)(copies(target, weights, 1))
    assert (form - reference).norm() < 0.99 * (weights - reference).norm()


@pytest.mark.parametrize("name", ["batch-normalised", "resnet-bn"])
def test_no_two_units_are_better_in_each_others_place(name):
    target = target_of(name)
    reference, draws = network(target, 1), rng()
    form = target.layout.unflatten(Canonicaliser.of(target, reference)(network(target, 2)[None])[0])
    goal = target.layout.unflatten(reference)

    def likeness(tensors):
        return sum(
            float((goal[key] * value).sum())
            for key, value in tensors.items()
            if key not in target.statistics
        )

    for space in hidden_spaces(target):
        for _ in range(30):
            order = torch.arange(space.size)
            pair = torch.randperm(space.size, generator=draws)[:2]
            order[pair] = order[pair.flip(0)]
            assert likeness(space.reorder(form, order)) < likeness(form)


@settings(deadline=None, max_examples=40)
@given(levels=st.sampled_from([(), (1,), (2,), (3,), (3, 1)]), seed=st.integers(0, 10_000))
def test_the_best_order_earns_most_of_all_that_keep_groups_together(levels, seed):
    gain = torch.randn(6, 6, generator=rng(seed), dtype=torch.float64)
    order = HiddenSpace(6, levels, (), False).best_order(gain)

    def permitted(candidate):
        runs = levels[:1] or (1,)
        pieces = [{i // runs[0] for i in candidate[k : k + runs[0]]} for k in range(0, 6, runs[0])]
        return all(len(piece) == 1 for piece in pieces)

    assert permitted(order.tolist())
    earned = [
        float(sum(gain[i, j] for i, j in enumerate(candidate)))
        for candidate in permutations(range(6))
        if permitted(candidate)
    ]
    assert float(gain[torch.arange(6), order].sum()) == pytest.approx(max(earned))
