"""The body of a target and its head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.body import SCALE, Body


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Scaled(nn.Module):
    """Does something after its last linear layer."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(4, 3)

    def forward(self, x):
        return 2 * self.output(x)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.normalisation = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.output = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.output(self.normalisation(self.hidden(x)).relu())


@pytest.mark.parametrize("name", ["mlp", "cnn-xs", "cnn-s", "cnn-m"])
def test_a_network_is_its_head_on_the_features_of_its_body(name):
    network = build_target(name, (1, 28, 28), 5)
    body = Body.of(network)
    weights, x = network.initialise(rng()), torch.rand(3, 1, 28, 28, generator=rng())
    own, head = body.split(weights)
    assert torch.equal(body.join(own, head), weights)
    logits = body.head.logits(head, body.features(own, x))
    torch.testing.assert_close(logits, network.logits(weights, x))
    assert body.layout.size + body.head.layout.size == network.layout.size + 1
    assert body.layout.names[-1] == SCALE
    assert float(body.scale(own)) == 1


def test_the_scale_is_bounded():
    body = Body.of(build_target("mlp", (4,), 3))
    weights = body.initialise(rng())
    weights[-1] = 80
    assert float(body.scale(weights)) == 100


def test_batch_normalisation_belongs_to_the_body():
    network = Target.of("normalised", Normalised, (4,), 3)
    body = Body.of(network)
    weights, x = network.initialise(rng()), torch.rand(8, 4, generator=rng())
    own, head = body.split(weights)
    assert head.shape == (18,)
    calibrated = body.calibrated(own, x)
    assert not torch.equal(calibrated, own)
    torch.testing.assert_close(
        body.features(calibrated, x), body.training_features(own, x), atol=0.1, rtol=0.2
    )
    torch.testing.assert_close(body.join(calibrated, head), network.calibrated(weights, x))
    with pytest.raises(TargetError, match="single example"):
        body.training_features(own, x[:1])


def test_features_can_be_differentiated():
    body = Body.of(build_target("mlp", (4,), 3))
    weights = body.initialise(rng()).requires_grad_()
    body.features(weights, torch.rand(2, 4)).sum().backward()
    assert float(weights.grad.abs().sum()) > 0


def test_a_network_that_goes_on_after_its_last_layer_has_no_head_of_its_own():
    with pytest.raises(TargetError, match='adapt = "all"'):
        Body.of(Target.of("scaled", Scaled, (4,), 3))


def test_a_single_linear_layer_is_all_head():
    body = Body.of(Target.of("linear", lambda: nn.Linear(4, 3), (4,), 3))
    assert body.layout.names == (SCALE,)
    x = torch.rand(2, 4)
    assert torch.equal(body.features(torch.zeros(1), x), x)
