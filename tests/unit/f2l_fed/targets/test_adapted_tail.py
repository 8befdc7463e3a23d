"""Networks cut before their first adapted layer: both parts together are the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from f2l_fed.errors import TargetError
from f2l_fed.targets.adaptation import adapted
from f2l_fed.targets.adapted_tail import AdaptedTail, FrozenFront, cut_network
from tests.support.small import rng


class Residual(nn.Module):
    """Convolutions with steps in place, sums, batch normalisation, and the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.register_buffer("mask", torch.ones(8, 1, 1, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(x))
        h = self.relu(self.norm(self.second(h)) + h) * self.mask
        return self.relu(self.third(h) + h).view(x.shape[0], 8, -1).mean(2)


class Sequences(nn.Module):
    """A transformer on a sequence of numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.words(x.long())).mean(1)


def inputs(network):
    if isinstance(network, Residual):
        return torch.rand(2, 3, 6, 6, generator=rng())
    return torch.randint(0, 10, (2, 7), generator=rng()).float()


def cut(network, part, layers):
    adapted(network.eval(), part, layers=layers, rank=2)
    trained = sorted(name for name, own in network.named_parameters() if own.requires_grad)
    found = cut_network(network, inputs(network), where="here")
    front, tail = FrozenFront(nn.Identity(), found.front), AdaptedTail(found.tail, nn.Identity())
    return found, front.eval(), tail.eval(), trained


@pytest.mark.parametrize(
    ("kind", "part", "layers", "kept"),
    [
        (Residual, "last-block", ("third",), 8 * 36),
        (Residual, "norm-bias", ("norm",), 2 * 8 * 36),
        (Residual, "norm-bias", ("",), 3 * 36),
        (Residual, "lora", ("third",), 8 * 36 + 2 * 36 + 8 * 36),
        (Residual, "lora", ("",), 2 * 36 + 8 * 36),
        (Sequences, "last-block", ("layers.layers.1",), 7 * 16),
        (Sequences, "norm-bias", ("layers.layers.1",), None),
        (Sequences, "last-block", ("words",), 7),
    ],
)
def test_both_parts_together_are_the_network_whatever_the_change(kind, part, layers, kept):
    network = kind()
    found, front, tail, trained = cut(network, part, layers)
    x = inputs(network)
    more = torch.cat([x, x.flip(0), x[:1]])
    values = front(more)
    assert kept is None or values.shape == (5, kept)
    assert tail.inputs == values.shape[1]
    torch.testing.assert_close(tail(values), network(more))
    with torch.no_grad():
        tail.change.uniform_(-0.1, 0.1, generator=rng())
    changed = tail(values)
    assert not torch.allclose(changed, network(more), atol=1e-4)
    names = [one.split()[0] for one in found.adapted]
    assert names == trained
    # The tail has taken the network's own tensors as they are, so these come last.
    parameters = dict(network.named_parameters())
    parts = tail.change.split([parameters[name].numel() for name in names])
    for name, shape, own in zip(names, found.tail.changes, parts, strict=True):
        parameters[name].data = parameters[name].data + own.detach().view(shape)
    torch.testing.assert_close(changed, network(more), rtol=1e-4, atol=1e-5)


def test_only_the_change_takes_a_gradient():
    network = Residual()
    _, front, tail, _ = cut(network, "last-block", ("third",))
    tail(front(inputs(network))).sum().backward()
    assert [name for name, own in tail.named_parameters() if own.requires_grad] == ["change"]
    assert bool(tail.change.grad.any())
    assert not any(own.requires_grad for own in front.parameters())


class Branching(Residual):
    """Its steps depend on the inputs' values, which no record of them holds."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > 0 else -x)


class Unused(Residual):
    """Has a layer that decides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "layers", "told"),
    [
        (Branching(), ("third",), r"steps can't be recorded.*torch\.export"),
        (Unused(), ("aside",), "no adapted layer decides"),
    ],
)
def test_a_network_that_can_t_be_cut_gets_one_sentence(network, layers, told):
    adapted(network.eval(), "last-block", layers=layers)
    with pytest.raises(TargetError, match=told):
        cut_network(network, torch.rand(2, 3, 6, 6), where="here")
