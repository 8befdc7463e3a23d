"""Batch normalisation in a target: its statistics are weights that only training examples set."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import accuracy_after, finetune, iterates, loss_and_accuracy
from f2l_fed.local_training.probe import anchor, probe_update
from f2l_fed.targets import Target, build_target
from tests.support.small import examples, rng

NAMES = ("1.running_mean", "1.running_var", "6.running_mean", "6.running_var")
RECIPE = Recipe(steps=15, lr=0.05, batch=15)


def normalised(input_shape, classes):
    """A convolutional network with a batch normalisation of each kind."""
    width = 4 * (input_shape[1] // 2) * (input_shape[2] // 2)
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, classes),
    )


@pytest.fixture
def target():
    return build_target(f"{__name__}:normalised", (1, 8, 8), 3)


def statistics(target, weights):
    return torch.cat([target.layout.unflatten(weights)[name].flatten() for name in NAMES])


def test_the_statistics_follow_the_parameters_in_the_layout(target):
    module = normalised((1, 8, 8), 3)
    assert target.statistics == NAMES
    assert target.layout.names == (*dict(module.named_parameters()), *NAMES)
    fresh = target.layout.unflatten(target.initialise(rng()))
    assert not fresh["1.running_mean"].any()
    assert torch.equal(fresh["6.running_var"], torch.ones(8))


def test_a_fine_tuned_network_predicts_by_its_own_statistics(target):
    x, y = examples(target, 60)
    weights = finetune(target, anchor(target, "lineage"), x, y, RECIPE, rng())
    assert loss_and_accuracy(target, weights, x, y)[1] > 0.95
    alone = torch.cat([target.logits(weights, one[None]) for one in x[:5]])
    torch.testing.assert_close(alone, target.logits(weights, x)[:5], rtol=1e-4, atol=1e-5)


def test_the_statistics_are_those_of_the_training_examples(target):
    x, y = examples(target, 60)
    weights = finetune(target, target.initialise(rng(1)), x, y, RECIPE, rng())
    tensors = target.layout.unflatten(weights)
    entering = functional.conv2d(x, tensors["0.weight"], padding=1)
    torch.testing.assert_close(tensors["1.running_mean"], entering.mean((0, 2, 3)))
    torch.testing.assert_close(tensors["1.running_var"], entering.var((0, 2, 3)))


def test_steps_are_those_of_torch_in_training_mode(target):
    x, y = examples(target, 30)
    module, start = normalised((1, 8, 8), 3).train(), target.initialise(rng(1))
    module.load_state_dict(target.layout.unflatten(start))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(6):
        optimiser.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    after = target.layout.unflatten(
        finetune(target, start, x, y, Recipe(steps=6, lr=0.05, momentum=0.9), rng())
    )
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(after[name], parameter.detach(), rtol=0, atol=1e-5)


def test_gradient_steps_leave_the_statistics_alone(target):
    x, y = examples(target, 30)
    start = target.initialise(rng(1)) + 0.5
    *_, last = iterates(target, start, x, y, RECIPE, rng())
    assert torch.equal(statistics(target, last), statistics(target, start))
    assert not torch.equal(last, start)


def test_no_step_changes_nothing_and_no_call_changes_its_arguments(target):
    x, y = examples(target, 30)
    start = target.initialise(rng(1)) + 0.5
    before = start.clone()
    assert torch.equal(finetune(target, start, x, y, Recipe(steps=0), rng()), start)
    target.training_logits(start, x)
    target.calibrated(start, x)
    assert torch.equal(start, before)
    assert torch.equal(target.calibrated(start, x), target.calibrated(start, x))


def test_the_examples_of_a_test_do_not_act_on_each_other(target):
    train, (x, y) = examples(target, 60), examples(target, 60, seed=1)
    start = target.initialise(rng(1))

    def measured(part):
        return accuracy_after(
            target, start, train, (x[part], y[part]), Recipe(steps=4), rng(), (0, 2, 4)
        )

    whole, few, rest = (measured(slice(*ends)) for ends in ((0, 60), (0, 3), (3, 60)))
    assert whole == pytest.approx([(3 * a + 57 * b) / 60 for a, b in zip(few, rest, strict=True)])


def test_accuracy_after_steps_is_that_of_the_fine_tuned_network(target):
    train, test = examples(target, 60), examples(target, 60, seed=1)
    start, recipe = target.initialise(rng(1)), Recipe(steps=4)
    after = finetune(target, start, *train, recipe, rng())
    expected = [loss_and_accuracy(target, weights, *test)[1] for weights in (start, after)]
    assert accuracy_after(target, start, train, test, recipe, rng(), (0, 4)) == expected


def test_a_probe_holds_the_statistics_too(target):
    x, y = examples(target, 15)
    start = anchor(target, "lineage")
    probe = probe_update(target, start, x, y, Recipe(steps=3))
    expected = statistics(target, target.calibrated(start + probe, x) - start)
    torch.testing.assert_close(statistics(target, probe), expected, rtol=1e-4, atol=1e-4)


def test_a_generated_variance_below_zero_still_gives_a_prediction(target):
    weights = target.initialise(rng())
    target.layout.unflatten(weights)["1.running_var"].fill_(-1.0)
    x, _ = examples(target, 6)
    assert bool(target.logits(weights, x).isfinite().all())


def test_a_site_can_take_the_network_away(target):
    x, y = examples(target, 30)
    weights = finetune(target, target.initialise(rng()), x, y, RECIPE, rng())
    module = target.module(weights)
    torch.testing.assert_close(module(x), target.logits(weights, x))


def test_a_single_example_is_no_batch(target):
    x, y = examples(target, 1)
    with pytest.raises(TargetError, match=r"single example.*GroupNorm"):
        finetune(target, target.initialise(rng()), x, y, RECIPE, rng())
    with pytest.raises(TargetError, match="single example"):
        target.calibrated(target.initialise(rng()), x)


def test_without_running_statistics_a_prediction_would_depend_on_its_batch():
    def factory():
        return nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)
        )

    with pytest.raises(TargetError, match=r"other inputs of its batch.*'1'.*track_running_stats"):
        Target.of("mine", factory, (4,), 3)
