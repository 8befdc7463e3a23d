"""Targets with a frozen part: it is neither laid out nor lost, and it belongs to the digest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from f2l_fed.errors import LayoutMismatch, TargetError
from f2l_fed.local_training.config import EpisodesConfig, Recipe
from f2l_fed.local_training.episodic import train_body
from f2l_fed.local_training.finetune import finetune
from f2l_fed.symmetry.channel_tracing import hidden_spaces
from f2l_fed.targets import Target
from f2l_fed.targets.body import SCALE, Body
from f2l_fed.targets.layout import WeightLayout
from tests.support.small import examples, rng

RECIPE = Recipe(steps=4, lr=0.1)


class Partly(nn.Module):
    """A frozen layer with normalisation, mask and counter before two trainable ones."""

    def __init__(self, value: float = 0.3, mask: float = 1.0, trained: int = 6):
        super().__init__()
        self.stem = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.middle = nn.Linear(5, trained)
        self.head = nn.Linear(trained, 3)
        self.register_buffer("mask", torch.full((5,), mask), persistent=False)
        self.register_buffer("order", torch.arange(5))
        with torch.no_grad():
            self.stem.weight.fill_(value).mul_(torch.arange(20).view(5, 4).sin())
            self.norm.running_var.fill_(2)
        for part in (self.stem, self.norm):
            part.requires_grad_(False)

    def forward(self, x):
        h = self.norm(self.stem(x))[:, self.order] * self.mask
        return self.head(self.middle(h).relu())


def of(factory=Partly, input_shape=(4,)):
    return Target.of("mine", factory, input_shape, 3)


def test_only_what_is_trained_is_laid_out():
    target = of()
    assert target.layout.names == ("middle.weight", "middle.bias", "head.weight", "head.bias")
    assert not target.statistics
    assert len(target.initialise(rng())) == target.layout.size


@pytest.mark.parametrize("other", [lambda: Partly(0.31), lambda: Partly(mask=0.5)])
def test_another_frozen_part_is_another_layout(other):
    one, another = of(), of(other)
    assert one.layout.digest == of().layout.digest != another.layout.digest
    with pytest.raises(LayoutMismatch, match="another frozen part") as caught:
        one.layout.require(another.layout)
    assert one.layout.frozen in str(caught.value)
    assert another.layout.frozen in str(caught.value)
    assert Body.of(one).head.layout.digest != Body.of(another).head.layout.digest
    assert Body.of(one).layout != Body.of(another).layout


def test_running_statistics_of_the_frozen_part_belong_to_it():
    def other():
        network = Partly()
        network.norm.running_mean.fill_(1)
        return network

    assert of().layout.frozen != of(other).layout.frozen


def test_the_digest_of_a_layout_without_a_frozen_part_is_what_it_was():
    layout = WeightLayout(("w",), ((2,),))
    assert layout.to_json() == {"tensors": [{"name": "w", "shape": [2], "dtype": "float32"}]}
    frozen = WeightLayout(("w",), ((2,),), "a" * 64)
    assert WeightLayout.from_json(frozen.to_json()) == frozen != layout


def test_steps_leave_the_frozen_part_alone():
    target = of()
    x, y = examples(target, 20)
    before = {name: tensor.clone() for name, tensor in target.template.state_dict().items()}
    weights = finetune(target, target.initialise(rng()), x, y, RECIPE, rng())
    module = target.module(weights)
    torch.testing.assert_close(module(x), target.logits(weights, x))
    after = module.state_dict()
    assert torch.equal(after["stem.weight"], before["stem.weight"])
    assert not torch.equal(after["middle.weight"], before["middle.weight"])
    for name, tensor in target.template.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_copies_of_a_body_share_the_frozen_part():
    target = of()
    body = Body.of(target)
    assert body.template.stem.weight is target.template.stem.weight
    assert body.layout.names == ("middle.weight", "middle.bias", SCALE)
    weights, head = body.split(target.initialise(rng()))
    x, _ = examples(target, 5)
    features = body.features(weights, x)
    whole = target.logits(body.join(weights, head), x)
    torch.testing.assert_close(body.head.logits(head, features), whole)


def test_a_body_that_is_frozen_as_a_whole_is_not_trained():
    def factory():
        network = Partly()
        network.middle.requires_grad_(False)
        return network

    body = Body.of(of(factory))
    x, y = examples(body.network, 20)
    weights = body.initialise(rng())
    assert body.is_frozen
    assert torch.equal(train_body(body, weights, x, y, EpisodesConfig(), 5, rng()), weights)


def test_units_that_a_frozen_layer_puts_out_keep_their_places():
    def factory():
        first, second = nn.Linear(4, 6), nn.Linear(6, 7)
        first.requires_grad_(False)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(7, 3))

    (space,) = hidden_spaces(of(factory))
    assert space.size == 7


def test_a_frozen_head_is_refused():
    def factory():
        network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
        network[1].requires_grad_(False)
        return network

    with pytest.raises(TargetError, match=r"'1\.weight', which is frozen"):
        of(factory)
