"""Output layers are solved to say what trained networks say on average, without any data."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.generator.solved_heads import SolvedHeads
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.targets import Target
from f2l_fed.targets.networks.mlp import mlp
from tests.support.small import examples, rng, small_target

TARGET = small_target(features=6, classes=4, hidden=12)
TASK = examples(TARGET, 80)
TEST = tuple(part[80:] for part in examples(TARGET, 380))
RECIPE = Recipe(steps=40, lr=0.1, batch=16)


def unbiased(features, classes):
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, classes, bias=False))


@cache
def trained():
    return torch.stack(
        [finetune(TARGET, TARGET.initialise(rng(i)), *TASK, RECIPE, rng(i)) for i in range(6)]
    )


def with_other_heads(networks, target=TARGET):
    """The same hidden layers under untrained output layers."""
    other = target.layout.unflatten(target.initialise(rng(99)))
    owned = {target.output_weight, target.output_bias}
    kept = [target.layout.unflatten(row) for row in networks]
    return torch.stack(
        [
            target.layout.flatten({k: other[k] if k in owned else v for k, v in tensors.items()})
            for tensors in kept
        ]
    )


def accuracy(networks):
    return sum(loss_and_accuracy(TARGET, row, *TEST)[1] for row in networks) / len(networks)


def test_trained_units_under_an_untrained_output_layer_become_a_good_network():
    spoiled = with_other_heads(trained())
    solved = SolvedHeads.of(TARGET, trained(), rng(1))(spoiled)
    assert accuracy(spoiled) < 0.6
    assert accuracy(solved) > accuracy(trained()) - 0.02


def test_logits_come_near_the_mean_of_the_trained_ones_on_inputs_never_solved_on():
    solved = SolvedHeads.of(TARGET, trained(), rng(1))(trained())
    x = torch.randn(500, 6, generator=rng(2))

    def centred(row):
        logits = TARGET.logits(row, x)
        return logits - logits.mean(1, keepdim=True)

    mean = torch.stack([centred(row) for row in trained()]).mean(0)
    for before, after in zip(trained(), solved, strict=True):
        assert (centred(after) - mean).square().mean() < (centred(before) - mean).square().mean()


def test_only_the_output_layer_changes():
    solved = SolvedHeads.of(TARGET, trained(), rng(1))(trained())
    for before, after in zip(trained(), solved, strict=True):
        tensors = TARGET.layout.unflatten(before)
        for name, found in TARGET.layout.unflatten(after).items():
            owned = name in (TARGET.output_weight, TARGET.output_bias)
            assert torch.equal(tensors[name], found) != owned


def test_the_same_seed_gives_the_same_bits():
    first, again, other = (SolvedHeads.of(TARGET, trained(), rng(s))(trained()) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_output_layer_without_biases_is_solved():
    target = Target.of("plain", partial(unbiased, 6, 4), (6,), 4)
    networks = torch.stack([target.initialise(rng(i)) for i in range(3)])
    x = torch.randn(300, 6, generator=rng(2))
    one = SolvedHeads.of(target, networks[:1], rng(1))
    solved = one(with_other_heads(networks[:1], target))[0]
    gap = target.logits(solved, x) - target.logits(networks[0], x)
    # Solved logits sum to zero over the classes.
    gap = gap - gap.mean(1, keepdim=True)
    assert gap.abs().max() < 0.1


def test_a_network_whose_units_are_all_silent_stays_finite():
    silent = torch.zeros(1, TARGET.layout.size)
    assert SolvedHeads.of(TARGET, trained(), rng(1))(silent).isfinite().all()


def test_no_networks_are_solved_as_well():
    nothing = torch.zeros(0, TARGET.layout.size)
    assert SolvedHeads.of(TARGET, trained(), rng(1))(nothing).shape == nothing.shape


def test_a_network_that_goes_on_after_its_output_layer_is_refused():
    def factory():
        return nn.Sequential(mlp((6,), 4, 5), nn.Tanh())

    target = Target.of("bounded", factory, (6,), 4)
    with pytest.raises(TargetError, match="last step is its linear output layer"):
        SolvedHeads.of(target, target.initialise(rng())[None], rng(1))
