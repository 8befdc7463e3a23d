"""Adapted parts of pretrained networks: what is trained, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.episodic import train_body
from f2l_fed.targets import Target
from f2l_fed.targets.adaptation import LowRank, adapted
from f2l_fed.targets.body import SCALE, Body
from f2l_fed.targets.head_rows import require_any_classes, with_classes
from tests.support.backbones import SHAPE, adapted_network
from tests.support.small import examples, rng


def pretrained():
    """A network with the same weights whenever it is built."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def target(part, **more):
    def factory():
        return nn.Sequential(adapted(pretrained(), part, **more), nn.Linear(6, 3))

    return Target.of("mine", factory, SHAPE, 3)


@pytest.mark.parametrize(
    ("part", "layers", "names"),
    [
        ("last-block", ["3", "4"], ["3.weight", "3.bias", "4.weight", "4.bias"]),
        ("norm-bias", [""], ["0.bias", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias"]),
        ("norm-bias", ["4"], ["4.weight", "4.bias"]),
        ("lora", [""], ["0.change", "3.change"]),
        ("lora", ["3"], ["3.change"]),
    ],
)
def test_only_the_adapted_part_is_trained(part, layers, names):
    body = Body.of(target(part, layers=layers))
    assert body.layout.names == (*(f"0.{name}" for name in names), SCALE)
    x, y = examples(body.network, 30)
    first = body.initialise(rng())
    torch.testing.assert_close(body.features(first, x), pretrained().eval()(x))
    trained = train_body(body, first, x, y, EpisodesConfig(), 3, rng())
    assert not torch.equal(trained[:-1], first[:-1])
    # Statistics are those of the pretraining at every step, whatever the batch.
    assert not body.network.statistics
    module = body.network.module(body.join(trained, torch.zeros(body.head.layout.size)))
    assert torch.equal(module[0][1].running_var, torch.ones(4))


def test_low_rank_changes_are_those_of_the_weights():
    for layer, x in (
        (nn.Linear(5, 4), torch.randn(7, 5, generator=rng())),
        (
            nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2),
            torch.randn(2, 3, 9, 9, generator=rng()),
        ),
    ):
        changed = LowRank(layer, 2, "here")
        torch.testing.assert_close(changed(x), layer(x))
        nn.init.normal_(changed.change)
        change = (changed.change @ changed.fixed.flatten(1)).view_as(layer.weight)
        by_hand = type(layer).forward
        before = changed(x)
        with torch.no_grad():
            layer.weight.add_(change)
        torch.testing.assert_close(by_hand(layer, x), before)


def test_the_fixed_factor_is_the_same_everywhere_and_differs_between_layers():
    one, again = (LowRank(nn.Linear(5, 4), 2, "one").fixed for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, LowRank(nn.Linear(5, 4), 2, "other").fixed)
    assert target("lora").layout == target("lora").layout
    assert target("lora", rank=2).layout.frozen != target("lora").layout.frozen


def test_a_body_of_low_rank_serves_any_number_of_classes():
    body = Body.of(
        Target.of(
            "tests.support.backbones:adapted_network", lambda: adapted_network(SHAPE, 5), SHAPE, 5
        )
    )
    require_any_classes(body)
    assert with_classes(body, 3).layout == body.layout


@pytest.mark.parametrize(
    ("part", "more", "told"),
    [
        ("head", {}, "unknown adapted part: expected last-block, norm-bias, lora, got head"),
        ("lora", {"layers": ["9"]}, "no such layer: got 9"),
        ("lora", {"layers": ["2"]}, "lora in 2: there is nothing to adapt"),
    ],
)
def test_what_cannot_be_adapted_gets_one_sentence(part, more, told):
    with pytest.raises(TargetError, match=told):
        adapted(pretrained(), part, **more)
