"""Private descent against a plain loop over single examples, and against the plain recipe."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.privacy.accountant import Ledger, noise_multiplier_for
from f2l_fed.privacy.dp_sgd import private_update, sampling_rate
from f2l_fed.targets import Target, build_target
from tests.support.devices import on_devices
from tests.support.small import examples, rng, small_target


def descent(target, start, x, y, recipe, *, noise=1e-9, most=1e9, seed=0):
    return private_update(
        target, start, x, y, recipe, noise_multiplier=noise, max_norm=most, rng=rng(seed)
    )


def one_by_one(target, start, x, y, recipe, most):
    """Full-batch steps with every example's gradient shortened, without any noise."""
    theta, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(recipe.steps):
        total = torch.zeros_like(start)
        for one, label in zip(x, y, strict=True):
            leaf = theta.clone().requires_grad_()
            loss = functional.cross_entropy(target.logits(leaf, one[None]), label[None])
            (gradient,) = torch.autograd.grad(loss, leaf)
            total += gradient * min(1.0, most / float(gradient.norm()))
        momentum = recipe.momentum * momentum + total / len(x)
        theta = theta - recipe.lr * momentum
    return theta - start


@pytest.mark.parametrize("name", ["mlp", "cnn-xs"])
def test_without_noise_and_limits_it_is_the_plain_recipe(name):
    target = build_target(name, (1, 12, 12), 3)
    x, y = examples(target, 20)
    start, recipe = target.initialise(rng(1)), Recipe(steps=6, lr=0.1)
    change = descent(target, start, x, y, recipe, noise=1e-15)
    plain = finetune(target, start, x, y, recipe, rng()) - start
    torch.testing.assert_close(change, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("most", [0.05, 0.5])
def test_every_examples_gradient_is_shortened(most):
    target = small_target()
    x, y = examples(target, 12)
    start, recipe = target.initialise(rng(1)), Recipe(steps=4, lr=0.5)
    torch.testing.assert_close(
        descent(target, start, x, y, recipe, most=most),
        one_by_one(target, start, x, y, recipe, most),
        rtol=0,
        atol=1e-5,
    )


def test_one_example_moves_a_step_no_farther_than_its_limit():
    target = small_target()
    x, y = examples(target, 12)
    start, recipe = target.initialise(rng(1)), Recipe(steps=1, lr=1.0, momentum=0.0)
    change = partial(descent, target, start, recipe=recipe, most=0.1)
    outlier = x.clone()
    outlier[3] *= 1e6
    apart = (change(x=outlier, y=y) - change(x=x, y=y)).norm()
    assert float(apart) * len(x) <= 2 * 0.1 * 1.001
    outlier[3] = math.inf
    broken = change(x=outlier, y=y)
    assert bool(broken.isfinite().all())


def test_noise_has_the_stated_width():
    target = build_target("mlp", (1, 12, 12), 3)
    x, y = examples(target, 20)
    start, recipe = target.initialise(rng(1)), Recipe(steps=1, lr=1.0, max_gradient_norm=0)
    changes = [
        descent(target, start, x, y, recipe, noise=2.0, most=0.5, seed=seed) for seed in (1, 2)
    ]
    # The difference of two draws, each with the deviation 2 * 0.5 / 20.
    width = float((changes[0] - changes[1]).std()) / math.sqrt(2)
    assert width == pytest.approx(2.0 * 0.5 / 20, rel=0.1)
    assert not torch.equal(*changes)


def test_examples_take_part_with_the_sampling_rate():
    count = 400
    target = Target.of("linear", partial(nn.Linear, count, 2), (count,), 2)
    x, y = torch.eye(count), torch.arange(count) % 2
    recipe = Recipe(steps=1, lr=1.0, momentum=0.0, batch=100)
    change = descent(target, torch.zeros(target.layout.size), x, y, recipe, noise=1e-12, most=10)
    took_part = target.layout.unflatten(change)["weight"].abs().sum(0) > 1e-6
    assert sampling_rate(recipe, count) == 0.25
    assert 65 <= int(took_part.sum()) <= 135


def test_batch_normalisation_is_refused():
    def network():
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))

    target = Target.of("normalised", network, (4,), 2)
    x, y = examples(target, 8)
    with pytest.raises(TargetError, match="batch normalisation"):
        descent(target, target.initialise(rng()), x, y, Recipe(steps=1))


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("parts", [[(1.0, 10)], [(0.2, 150), (1.0, 10)]])
def test_the_noise_for_a_budget_spends_it_and_no_more(epsilon, parts):
    noise = noise_multiplier_for(epsilon, 1e-5, parts)
    spent = [0.0, 0.0]
    for index, sigma in enumerate((noise, 0.99 * noise)):
        ledger = Ledger()
        for rate, steps in parts:
            ledger = ledger.spend(sigma, rate, steps)
        spent[index] = ledger.epsilon(1e-5)
    assert spent[0] <= epsilon < spent[1]


@on_devices
def test_a_device_draws_the_noise_of_the_cpu(device):
    target = small_target()
    x, y = examples(target, 30)
    start, recipe = target.initialise(rng(1)), Recipe(steps=5, lr=0.1, batch=10)
    made = descent(target.to(device), start, x, y, recipe, noise=1.0, most=1.0)
    wanted = descent(target, start, x, y, recipe, noise=1.0, most=1.0)
    assert made.device == start.device
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)
    assert wanted.norm() > 0.1
