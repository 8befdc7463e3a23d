"""Heads for different numbers of classes in one matrix: padded, counted, cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from f2l_fed.errors import LayoutMismatch, TargetError
from f2l_fed.local_training.logistic_head import logistic_head
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import (
    class_count,
    class_counts,
    classes_of_width,
    cut,
    padded,
    require_any_classes,
    with_classes,
)
from tests.support.small import rng

BODY = Body.of(build_target("mlp", (6,), 12))
LARGEST = BODY.head.layout
ROW = 33


def solved(classes, seed=0):
    """A head as sites send it."""
    draws = rng(seed)
    labels = torch.arange(4 * classes) % classes
    features = torch.randn(len(labels), ROW - 1, generator=draws)
    return logistic_head(features, labels, classes, strength=0.01)


@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_a_padded_head_says_the_same_and_is_cut_to_what_it_was(classes):
    heads = torch.stack([solved(classes, seed) for seed in range(3)])
    wide = padded(heads, LARGEST)
    assert wide.shape == (3, LARGEST.size)
    assert torch.equal(cut(wide, LARGEST, classes), heads)
    assert class_counts(wide, LARGEST).tolist() == [classes] * 3
    features = torch.randn(7, ROW - 1, generator=rng(9))
    logits = BODY.head.logits(wide[0], features)
    own = with_classes(BODY, classes).head.logits(heads[0], features)
    torch.testing.assert_close(logits[:, :classes], own)
    assert not bool(logits[:, classes:].any())


def test_a_head_without_biases_is_padded_too():
    layout = type(LARGEST)(("weight",), ((5, 4),))
    heads = torch.randn(2, 12, generator=rng())
    wide = padded(heads, layout)
    assert torch.equal(wide[:, :12], heads)
    assert not bool(wide[:, 12:].any())
    assert classes_of_width(12, layout) == 3


def test_rounding_counts_for_nothing_and_a_head_of_zeros_for_the_fewest_classes():
    wide = padded(solved(4)[None], LARGEST)[0]
    assert class_count(wide + 1e-8 * torch.randn(LARGEST.size, generator=rng()), LARGEST) == 4
    assert class_count(torch.zeros(LARGEST.size), LARGEST) == 2


@pytest.mark.parametrize("width", [0, 1, ROW, 2 * ROW - 1, 2 * ROW + 1, 13 * ROW, 10**12])
def test_a_width_that_no_number_of_classes_gives_is_refused(width):
    with pytest.raises(LayoutMismatch, match="33 numbers for each of 2 to 12 classes") as error:
        classes_of_width(width, LARGEST)
    assert f"{width} numbers" in str(error.value)


@pytest.mark.parametrize("name", ["mlp", "cnn-xs", "cnn-s", "cnn-m"])
def test_a_body_is_the_same_for_every_number_of_classes(name):
    few, many = (Body.of(build_target(name, (1, 28, 28), classes)) for classes in (3, 12))
    assert few.layout.digest == many.layout.digest
    require_any_classes(many)
    assert with_classes(many, 3).layout == few.layout
    assert with_classes(many, 12) is many
    weights, x = many.initialise(rng()), torch.rand(2, 1, 28, 28, generator=rng())
    assert torch.equal(few.features(weights, x), many.features(weights, x))


class Widening(nn.Module):
    """Has more features for more classes."""

    def __init__(self, classes):
        super().__init__()
        self.hidden, self.output = nn.Linear(4, 2 * classes), nn.Linear(2 * classes, classes)

    def forward(self, x):
        return self.output(self.hidden(x).relu())


class Scaling(nn.Module):
    """Has other features for more classes."""

    def __init__(self, classes):
        super().__init__()
        self.hidden, self.output, self.factor = nn.Linear(4, 5), nn.Linear(5, classes), classes

    def forward(self, x):
        return self.output(self.factor * self.hidden(x))


def widening(input_shape, classes):
    return Widening(classes)


def scaling(input_shape, classes):
    return Scaling(classes)


@pytest.mark.parametrize("name", ["widening", "scaling"])
def test_a_body_that_depends_on_the_number_of_classes_is_refused(name):
    target = build_target(f"{__name__}:{name}", (4,), 6)
    assert isinstance(target, Target)
    with pytest.raises(TargetError, match="body depends on the number of classes"):
        require_any_classes(Body.of(target))
