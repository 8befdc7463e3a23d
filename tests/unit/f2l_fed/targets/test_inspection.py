"""What users' networks do, and the one sentence that each gets which can't be a target."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.targets import Target
from tests.support.small import rng


def of(factory):
    return Target.of("mine", factory, (4,), 3)


class WithAuxiliaryHead(nn.Module):
    """Its head is registered first; the last linear layer is an auxiliary one that is called."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.stem = nn.Linear(4, 6)
        self.auxiliary = nn.Linear(6, 3)

    def forward(self, x):
        h = self.stem(x).relu()
        out = self.head(h)
        self.seen = self.auxiliary(h)
        return out


class HiddenRegisteredLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.hidden = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


@pytest.mark.parametrize("factory", [WithAuxiliaryHead, HiddenRegisteredLast])
def test_the_head_is_the_layer_whose_result_is_the_output(factory):
    target = of(factory)
    assert (target.output_weight, target.output_bias) == ("head.weight", "head.bias")


def test_a_step_after_the_last_layer_does_not_hide_it():
    target = of(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Tanh()))
    assert target.output_weight == "1.weight"


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.two = nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()))


def test_tied_hidden_layers_are_one_tensor_everywhere():
    target = of(Tied)
    assert target.layout.names == ("one.weight", "head.weight", "head.bias")
    weights, x = target.initialise(rng()), torch.randn(5, 4, generator=rng())
    module = target.module(weights)
    assert module.two.weight is module.one.weight
    torch.testing.assert_close(module(x), target.logits(weights, x))


SHARED = r"'head\.weight', which is no parameter of its own"


class TiedHead(nn.Module):
    def __init__(self, first="embedding", second="head"):
        super().__init__()
        self.stem = nn.Linear(4, 3)
        for name in (first, second):
            setattr(self, name, nn.Linear(3, 3, bias=False))
        getattr(self, second).weight = getattr(self, first).weight

    def forward(self, x):
        return self.head(self.embedding(self.stem(x)).relu())


def test_lazy_layers_get_their_shapes_and_the_same_values_everywhere():
    target = of(lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3)))
    assert target.layout.shapes == ((5, 4), (5,), (3, 5), (3,))
    assert torch.equal(target.initialise(rng(2)), target.initialise(rng(2)))


class Calling(nn.Linear):
    """A linear layer whose forward is given."""

    def __init__(self, forward):
        super().__init__(4, 3)
        self.result = forward

    def forward(self, x):
        return self.result(self, super().forward(x))


def fails(error):
    def forward(_, out):
        raise error

    return forward


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def broken_factory():
    return {}["missing"]


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (
            partial(TiedHead, "head", "embedding"),
            r"'head\.weight', which is no parameter of its own",
        ),
        (TiedHead, SHARED),
        (lambda: Calling(lambda _, out: out + torch.rand(1)), "other outputs for the same inputs"),
        (lambda: Calling(lambda _, out: {"logits": out}), r"got dict\. Wrap it"),
        (lambda: Calling(lambda _, out: (out, out)), r"got tuple\. Wrap it"),
        (lambda: Calling(lambda _, out: out.softmax(1)), "probabilities.*Leave the final softmax"),
        (lambda: nn.Linear(4, 3).bfloat16(), r"weight torch\.bfloat16\. Call float"),
        (lambda: Calling(lambda _, out: out / 0), "not finite, even"),
        (Counting, "changes its own buffers"),
        (broken_factory, "the factory fails: got KeyError: 'missing'"),
        (lambda: Calling(fails(KeyError("k"))), "got KeyError: 'k'"),
        (lambda: Calling(fails(AssertionError())), "got AssertionError"),
        (lambda: Calling(fails(IndexError("far"))), "got IndexError: far"),
        (lambda: nn.Linear(5, 3), "got RuntimeError: mat1 and mat2"),
    ],
)
def test_a_network_that_cannot_be_a_target_gets_one_sentence(factory, told):
    with pytest.raises(TargetError, match=told):
        of(factory)


def test_a_head_of_another_precision_may_follow_a_frozen_part_of_any():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(4, 5).bfloat16().requires_grad_(False)
            self.head = nn.Linear(5, 3)

        def forward(self, x):
            return self.head(functional.relu(self.stem(x.bfloat16())).float())

    assert of(Mixed).layout.frozen
