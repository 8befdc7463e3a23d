"""A layout has one digest everywhere, and a mismatch says which tensor and which digests."""

from __future__ import annotations

import json

import pytest
import torch

from f2l_fed.errors import LayoutMismatch
from f2l_fed.targets.layout import WeightLayout

LAYOUT = WeightLayout(("w", "b"), ((2, 3), (2,)))


def test_the_digest_is_the_same_as_ever():
    assert LAYOUT.digest == "a5e3269fee8a526966b3864db40fd4e94829e22d7e4f62b606b91070a2e0183c"


@pytest.mark.parametrize(
    "other",
    [
        WeightLayout(("b", "w"), ((2,), (2, 3))),
        WeightLayout(("w", "c"), ((2, 3), (2,))),
        WeightLayout(("w", "b"), ((3, 2), (2,))),
        WeightLayout(("w",), ((2, 3),)),
    ],
)
def test_another_order_name_shape_or_number_of_tensors_has_another_digest(other):
    assert other.digest != LAYOUT.digest


def test_the_json_of_a_layout_reads_back():
    assert WeightLayout.from_json(json.loads(json.dumps(LAYOUT.to_json()))) == LAYOUT


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"tensors": 3},
        {"tensors": ["w"]},
        {"tensors": [{"name": "w", "shape": [2]}]},
        {"tensors": [{"name": "w", "shape": [2], "dtype": "float64"}]},
        {"tensors": [{"name": "w", "shape": "x", "dtype": "float32"}]},
        {"tensors": [{"name": "w", "shape": None, "dtype": "float32"}]},
        {"tensors": [{"shape": [2], "dtype": "float32"}]},
        [],
        None,
    ],
)
def test_json_that_is_not_a_layout_is_refused(bad):
    with pytest.raises(LayoutMismatch, match="invalid layout"):
        WeightLayout.from_json(bad)


def test_a_mismatch_names_the_first_tensor_that_differs_and_both_digests():
    other = WeightLayout(("w", "c", "d"), ((2, 3), (2,), (9,)))
    with pytest.raises(LayoutMismatch) as caught:
        LAYOUT.require(other, where="site a")
    text = str(caught.value)
    assert "site a" in text
    assert f"expected b (2,) (digest {LAYOUT.digest[:12]})" in text
    assert f"got c (2,) (digest {other.digest[:12]})" in text


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
    other = WeightLayout(("w", "b"), ((3, 2), (2,)))
    with pytest.raises(LayoutMismatch, match=r"expected w \(2, 3\).*got w \(3, 2\)"):
        LAYOUT.require(other)


def test_a_missing_or_further_tensor_is_named_too():
    shorter = WeightLayout(("w",), ((2, 3),))
    with pytest.raises(LayoutMismatch, match=r"expected b \(2,\).*got no further tensor"):
        LAYOUT.require(shorter)
    with pytest.raises(LayoutMismatch, match=r"expected no further tensor.*got b \(2,\)"):
        shorter.require(LAYOUT)


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": torch.zeros(2, 3)},
        {"w": torch.zeros(2, 3), "b": torch.zeros(2), "c": torch.zeros(1)},
        {"w": torch.zeros(3, 2), "b": torch.zeros(2)},
        {"w": torch.zeros(2, 3), "bias": torch.zeros(2)},
    ],
)
def test_only_exactly_these_tensors_are_flattened(tensors):
    with pytest.raises(LayoutMismatch):
        LAYOUT.flatten(tensors)


@pytest.mark.parametrize("shape", [(7,), (9,), (1, 8), (2, 4)])
def test_only_a_vector_of_the_right_length_is_unflattened(shape):
    with pytest.raises(LayoutMismatch, match="expected 8"):
        LAYOUT.unflatten(torch.zeros(shape))


def test_gradients_flow_back_into_the_vector():
    vector = torch.zeros(8, requires_grad=True)
    LAYOUT.unflatten(vector)["b"].sum().backward()
    assert vector.grad.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
