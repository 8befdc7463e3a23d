"""Flattening and unflattening undo each other, for any names, shapes and order."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.targets.layout import WeightLayout
from tests.support.small import rng

quick = settings(deadline=None, max_examples=60)
shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
layouts = st.dictionaries(st.text(min_size=1, max_size=8), shapes, min_size=1, max_size=6).map(
    lambda named: WeightLayout(tuple(named), tuple(named.values()))
)


@quick
@given(layout=layouts, data=st.data())
def test_flatten_and_unflatten_undo_each_other(layout, data):
    vector = torch.randn(layout.size, generator=rng(data.draw(st.integers(0, 99))))
    tensors = layout.unflatten(vector)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dict(
        zip(layout.names, layout.shapes, strict=True)
    )
    shuffled = {name: tensors[name] for name in data.draw(st.permutations(layout.names))}
    assert torch.equal(layout.flatten(shuffled), vector)


@quick
@given(layout=layouts)
def test_every_tensor_lies_at_its_offset(layout):
    tensors = layout.unflatten(torch.arange(float(layout.size)))
    firsts = [int(tensors[name].reshape(-1)[0]) for name in layout.names]
    assert firsts == list(layout.offsets)


@quick
@given(layout=layouts)
def test_json_and_digest_survive_a_round_trip(layout):
    copy = WeightLayout.from_json(layout.to_json())
    assert copy == layout
    assert copy.digest == layout.digest
