"""The local recipe is plain SGD, checked against torch's own optimiser."""

from __future__ import annotations

import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from f2l_fed.errors import ConfigError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import accuracy_after, finetune, iterates, loss_and_accuracy
from f2l_fed.local_training.selection import select
from f2l_fed.targets import Target, build_target, layout
from tests.support.devices import Reads, on_devices
from tests.support.small import examples, rng, small_target


def reference(target, weights, x, y, recipe):
    """Full-batch steps of torch.optim.SGD on a copy of the module."""
    module = copy.deepcopy(target.template)
    with torch.no_grad():
        for name, value in target.layout.unflatten(weights).items():
            module.get_parameter(name).copy_(value)
    optimiser = torch.optim.SGD(module.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    for _ in range(recipe.steps):
        optimiser.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        if recipe.max_gradient_norm:
            nn.utils.clip_grad_norm_(module.parameters(), recipe.max_gradient_norm)
        optimiser.step()
    return target.layout.flatten(dict(module.named_parameters()))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch", [0, 30, 1_000])
@pytest.mark.parametrize("most", [0, 0.1, 5.0])
def test_full_batch_steps_are_those_of_torch(momentum, batch, most):
    target = small_target()
    x, y = examples(target, 30)
    weights = target.initialise(rng(1))
    recipe = Recipe(steps=12, lr=0.05, momentum=momentum, batch=batch, max_gradient_norm=most)
    torch.testing.assert_close(
        finetune(target, weights, x, y, recipe, rng()),
        reference(target, weights, x, y, recipe),
        rtol=0,
        atol=1e-6,
    )


def test_no_step_is_longer_than_the_gradient_may_be():
    target = small_target()
    x, y = examples(target, 30)
    weights = 30 * target.initialise(rng(1))
    for most, bound in ((0.0, math.inf), (0.5, 0.5)):
        recipe = Recipe(steps=1, lr=1.0, momentum=0.0, max_gradient_norm=most)
        step = float((finetune(target, weights, x, y, recipe, rng()) - weights).norm())
        assert step <= 1.0001 * bound
        assert step > 0.4
        assert (step > 5) == (most == 0)


@pytest.mark.parametrize("most", [-1.0, math.inf, math.nan])
def test_a_limit_of_the_gradient_that_is_none_is_refused(most):
    with pytest.raises(ConfigError, match="max_gradient_norm"):
        Recipe(steps=1, max_gradient_norm=most)


def test_a_convolutional_target_descends_like_torch_too():
    target = build_target("cnn-xs", (1, 12, 12), 3)
    x, y = examples(target, 12)
    weights, recipe = target.initialise(rng(1)), Recipe(steps=5)
    torch.testing.assert_close(
        finetune(target, weights, x, y, recipe, rng()),
        reference(target, weights, x, y, recipe),
        rtol=0,
        atol=1e-6,
    )


def examples_of_each_step(count, batch, steps, seed=0):
    """With one-hot inputs to a linear layer, a gradient shows which examples it came from."""
    target = Target.of("linear", partial(nn.Linear, count, 2), (count,), 2)
    x, y = torch.eye(count), torch.arange(count) % 2
    recipe = Recipe(steps=steps, momentum=0.0, batch=batch)
    path = [
        w.clone()
        for w in iterates(target, torch.zeros(target.layout.size), x, y, recipe, rng(seed))
    ]
    changes = [target.layout.unflatten(b - a)["weight"] for a, b in pairwise(path)]
    return [set(change.abs().sum(0).nonzero().squeeze(1).tolist()) for change in changes]


def test_every_example_is_used_once_before_any_is_used_again():
    batches = examples_of_each_step(count=12, batch=4, steps=9)
    assert all(len(batch) == 4 for batch in batches)
    for epoch in range(3):
        assert set.union(*batches[3 * epoch : 3 * epoch + 3]) == set(range(12))


def test_batches_are_reshuffled_and_drawn_from_the_given_generator():
    batches = examples_of_each_step(count=12, batch=4, steps=6)
    assert batches[:3] != batches[3:]
    assert examples_of_each_step(count=12, batch=4, steps=6) == batches
    assert examples_of_each_step(count=12, batch=4, steps=6, seed=1) != batches


def test_a_batch_that_does_not_divide_the_examples_stays_whole():
    batches = examples_of_each_step(count=10, batch=4, steps=5)
    assert [len(batch) for batch in batches] == [4] * 5
    assert not batches[0] & batches[1]


def test_the_start_is_not_changed():
    target = small_target()
    x, y = examples(target, 9)
    weights = target.initialise(rng())
    before = weights.clone()
    after = finetune(target, weights, x, y, Recipe(steps=3), rng())
    assert torch.equal(weights, before)
    assert not torch.equal(after, before)
    assert not after.requires_grad
    assert torch.equal(finetune(target, weights, x, y, Recipe(steps=0), rng()), before)


def test_loss_and_accuracy_are_means_over_the_examples():
    target = Target.of("linear", partial(nn.Linear, 2, 2), (2,), 2)
    weights = target.layout.flatten({"weight": torch.eye(2), "bias": torch.zeros(2)})
    x, y = (
        torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 3.0], [0.0, 3.0]]),
        torch.tensor([0, 1, 1, 0]),
    )
    loss, accuracy = loss_and_accuracy(target, weights, x, y)
    right = torch.log1p(torch.exp(torch.tensor(-3.0)))
    assert loss == pytest.approx(float((3 * right + (right + 3)) / 4), rel=1e-5)
    assert accuracy == 0.75


def test_accuracy_is_taken_after_exactly_the_requested_numbers_of_steps():
    target = small_target()
    train, test = examples(target, 30), examples(target, 60)
    weights, recipe = target.initialise(rng(2)), Recipe(steps=999, lr=0.1)
    steps = (7, 0, 3)
    expected = []
    for count in steps:
        some = Recipe(steps=count, lr=0.1)
        after = finetune(target, weights, *train, some, rng())
        expected.append(loss_and_accuracy(target, after, *test)[1])
    assert accuracy_after(target, weights, train, test, recipe, rng(), steps) == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize(("lr", "is_taken"), [(0.05, True), (30.0, False)])
def test_pulled_steps_that_end_above_their_start_are_taken_nowhere(lr, is_taken):
    target = small_target()
    train, test = examples(target, 30), examples(target, 90)
    start = finetune(target, target.initialise(rng(1)), *train, Recipe(steps=60), rng())
    recipe = Recipe(steps=2, lr=lr, max_gradient_norm=0)
    made = finetune(target, start, *train, recipe, rng(), pull=0.1)
    assert torch.equal(made, start) != is_taken
    unpulled = finetune(target, start, *train, recipe, rng())
    assert not torch.equal(unpulled, start)
    curve = accuracy_after(target, start, train, test, recipe, rng(), (0, 2), pull=0.1)
    assert curve == [loss_and_accuracy(target, one, *test)[1] for one in (start, made)]


@on_devices
@pytest.mark.parametrize("name", ["mlp", "cnn-xs", "resnet20"])
def test_a_device_makes_the_network_of_the_cpu(device, name):
    target = build_target(name, (1, 12, 12), 3)
    x, y = examples(target, 40)
    weights = target.initialise(rng(1))
    recipe = Recipe(steps=8, lr=0.05, batch=16)
    there = target.to(device)
    made = finetune(there, weights, x, y, recipe, rng(2), pull=0.1)
    wanted = finetune(target, weights, x, y, recipe, rng(2), pull=0.1)
    assert made.device == weights.device
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)
    assert loss_and_accuracy(there, made, x, y) == pytest.approx(
        loss_and_accuracy(target, wanted, x, y), abs=1e-3
    )
    offered = {"start": weights, "end": made}
    kind, chosen = select(there, offered, x, y)
    assert kind == select(target, offered, x, y)[0]
    assert torch.equal(chosen, offered[kind])


@pytest.mark.parametrize("batch", [0, 16])
@pytest.mark.parametrize("pull", [0.0, 0.1])
def test_no_step_reads_a_number(batch, pull):
    target = build_target("resnet20", (1, 12, 12), 3)
    x, y = examples(target, 40)
    start, found = target.initialise(rng(1)), []
    for steps in (2, 9):
        with Reads() as reads:
            finetune(target, start, x, y, Recipe(steps=steps, batch=batch), rng(), pull=pull)
        found.append(reads.count)
    assert found[0] == found[1] <= 20


def test_all_steps_run_where_no_number_can_be_read(monkeypatch):
    # Layouts refuse tensors without numbers.
    monkeypatch.setattr(layout, "oddity", lambda _: "")
    target = build_target("cnn-xs", (1, 12, 12), 3)
    x, y = examples(target, 40)
    there, recipe = target.to(torch.device("meta")), Recipe(steps=5, batch=16)
    steps = list(iterates(there, target.initialise(rng(1)), x, y, recipe, rng(), pull=0.1))
    assert len(steps) == 6
    assert all(theta.is_meta for theta in steps)
