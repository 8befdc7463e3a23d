"""Hidden units that may change places, and the gain of giving them an order."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from f2l_fed.codec import fit_pca
from f2l_fed.codec.canonical_gain import CanonicalGain, held_out_gain
from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import anchor
from f2l_fed.symmetry.channel_tracing import hidden_spaces
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.symmetry.weight_matching import Canonicaliser
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.networks.resnet import resnet
from tests.support.small import rng, small_target

IMAGE = (1, 8, 8)


def spaces_of(factory, input_shape=IMAGE):
    return hidden_spaces(Target.of("mine", factory, input_shape, 3))


def described(spaces):
    return [
        (space.size, {(axis.name, axis.dimension, axis.block) for axis in space.axes})
        for space in spaces
    ]


def test_units_are_tied_where_layers_meet_and_inputs_and_outputs_stay():
    assert described(hidden_spaces(build_target("cnn-xs", (1, 12, 12), 3))) == [
        (8, {("0.weight", 0, 1), ("0.bias", 0, 1), ("2.weight", 1, 1)}),
        (16, {("2.weight", 0, 1), ("2.bias", 0, 1), ("6.weight", 1, 1)}),
    ]


def test_a_flattened_channel_is_a_block_of_inputs():
    def factory():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    (space,) = spaces_of(factory)
    assert ("3.weight", 1, 36) in described([space])[0][1]


def test_normalised_units_keep_their_scale_and_groups_stay_together():
    (plain,) = spaces_of(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (4,))
    assert (plain.scalable, plain.levels) == (True, ())
    spaces = hidden_spaces(build_target("cnn-m", (1, 12, 12), 3))
    assert [space.levels for space in spaces] == [(4,), (8,), (4,)]
    assert not any(space.scalable for space in spaces)


@pytest.mark.parametrize("groups", [1, 6])
def test_groups_of_all_channels_and_of_single_ones_bind_nothing(groups):
    def factory():
        return nn.Sequential(
            nn.Conv2d(1, 6, 8), nn.GroupNorm(groups, 6), nn.Flatten(), nn.Linear(6, 3)
        )

    assert [space.levels for space in spaces_of(factory)] == [()]


def test_units_that_are_bent_may_change_places_but_not_scale():
    (space,) = spaces_of(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (4,))
    assert (space.size, space.scalable) == (6, False)


def test_all_blocks_of_a_stage_share_the_channels_that_pass_them():
    spaces = spaces_of(partial(resnet, IMAGE, 3, blocks=2, norm=nn.BatchNorm2d))
    assert [space.size for space in spaces] == [16, 16, 16, 32, 32, 32, 64, 64, 64]
    passing = {axis.name for axis in spaces[0].axes if axis.name.endswith("weight")}
    assert {"0.weight", "3.body.3.weight", "4.body.3.weight", "5.body.0.weight"} <= passing
    assert {"3.body.4.running_mean", "3.body.4.running_var"} <= {a.name for a in spaces[0].axes}


class Written(nn.Module):
    """The same steps as functions and methods."""

    def __init__(self):
        super().__init__()
        self.conv, self.skip, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(36, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x)).add(functional.relu(self.skip(x)))
        x = functional.max_pool2d(x, 2)
        return self.head(functional.dropout(x, 0.5, self.training).view(x.size(0), -1))


def test_steps_written_as_functions_are_followed_too():
    assert described(spaces_of(Written)) == [
        (
            4,
            {(f"{layer}.{kind}", 0, 1) for layer in ("conv", "skip") for kind in ("weight", "bias")}
            | {("head.weight", 1, 9)},
        )
    ]


def test_an_input_added_further_on_fixes_the_order_of_the_units_there():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(x + torch.relu(self.first(x)))

    target = Target.of("skip", Skip, (4,), 3)
    assert hidden_spaces(target) == ()
    weights = torch.stack([target.initialise(rng(seed)) for seed in range(3)])
    assert torch.equal(Canonicaliser.of(target, weights[0])(weights), weights)


def test_a_network_without_hidden_units_is_its_own_canonical_form():
    target = Target.of("linear", partial(nn.Linear, 4, 3), (4,), 3)
    weights = target.initialise(rng())[None]
    assert torch.equal(Canonicaliser.of(target, weights[0])(weights), weights)


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Twice(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def conv(*layers):
    return lambda: nn.Sequential(nn.Conv2d(1, 12, 8), *layers, nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize(
    ("factory", "input_shape", "got"),
    [
        (lambda: nn.Sequential(Branching(4, 4), nn.Linear(4, 3)), (4,), "can't be traced"),
        (Twice, (4,), r"'second\.weight', which is shared"),
        (conv(nn.Conv2d(12, 12, 1, groups=12)), IMAGE, "the step '_0_1'"),
        (conv(nn.GroupNorm(2, 12), nn.GroupNorm(3, 12)), IMAGE, "in groups of 6 and of 4"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 3)), (4,), "'_0_1'"),
        (
            lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 3)),
            (4,),
            "the step",
        ),
    ],
)
def test_a_network_with_unknown_symmetries_is_refused(factory, input_shape, got):
    with pytest.raises(TargetError, match="hidden units are unknown") as caught:
        spaces_of(factory, input_shape)
    with pytest.raises(TargetError, match=got):
        raise caught.value


def test_a_unit_that_nothing_leaves_has_no_scale():
    target = small_target()
    weights = anchor(target, "lineage")
    form = Canonicaliser.of(target, target.initialise(rng()))(weights[None])[0]
    assert bool(form.isfinite().all())
    assert form.norm() > 0.5 * weights.norm()


def fine_tuned(target, starts):
    """Networks of sites that have the same classes, each in a somewhat different form."""
    draws = rng(0)
    centres = 2 * torch.randn(3, *IMAGE, generator=draws)
    y = torch.arange(60) % 3
    networks = []
    for index, start in enumerate(starts):
        own = centres + 0.5 * torch.randn(3, *IMAGE, generator=draws)
        x = own[y] + torch.randn(60, *IMAGE, generator=draws)
        networks.append(finetune(target, start, x, y, Recipe(steps=20, batch=20), rng(index)))
    return torch.stack(networks)


def gain_of(target, networks):
    symmetry = OutputSymmetry.of(target, enabled=False)
    return held_out_gain(
        networks,
        Canonicaliser.of(target, networks[0]),
        partial(fit_pca, symmetry=symmetry, common=32, rows=1),
    )


def test_networks_of_one_anchor_gain_nothing_from_canonical_weights():
    target = build_target("cnn-xs", IMAGE, 3)
    gain = gain_of(target, fine_tuned(target, [anchor(target, "lineage")] * 40))
    assert gain.before < 0.1
    assert not gain.helps


def test_networks_of_different_starts_gain_from_canonical_weights():
    target = build_target("cnn-xs", IMAGE, 3)
    gain = gain_of(target, fine_tuned(target, [target.initialise(rng(s)) for s in range(40)]))
    assert gain.before > 0.8
    assert gain.after < 0.9 * gain.before
    assert gain.helps


def test_no_change_and_a_tiny_gain_are_not_worth_it():
    weights = torch.randn(20, 9, generator=rng())
    fit = partial(
        fit_pca, symmetry=OutputSymmetry(torch.arange(9), torch.empty(0, 0, dtype=torch.int64), 9)
    )
    gain = held_out_gain(weights, lambda given: given, partial(fit, common=4, rows=1))
    assert gain.before == gain.after
    assert not gain.helps
    assert not CanonicalGain(before=1.0, after=0.99).helps


def test_the_fit_never_sees_the_networks_it_is_judged_on():
    seen = []

    def fit(weights):
        seen.append(weights)
        return fit_pca(
            weights,
            OutputSymmetry(torch.arange(9), torch.empty(0, 0, dtype=torch.int64), 9),
            common=4,
            rows=1,
        )

    weights = torch.randn(20, 9, generator=rng())
    held_out_gain(weights, torch.neg, fit)
    assert torch.equal(seen[0], weights[:16])
    assert torch.equal(seen[1], -weights[:16])
