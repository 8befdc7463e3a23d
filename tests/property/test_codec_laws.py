"""Laws of codecs: relabelling commutes with them, and none of their parts mixes what is apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.codec.chunk_network import chunk_positions
from f2l_fed.codec.pca import principal_components
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from tests.support.codecs import KINDS, fitted_codec
from tests.support.small import rng

quick = settings(deadline=None, max_examples=20)
every = pytest.mark.parametrize("kind", KINDS)
orders = st.permutations(range(3)).map(torch.tensor)
seeds = st.integers(0, 10_000)


@every
@quick
@given(order=orders, seed=seeds)
def test_relabelling_a_network_relabels_its_latent_and_nothing_else(kind, order, seed):
    codec = fitted_codec(kind, True)
    symmetry, shape = codec.symmetry, codec.shape
    weights = torch.randn(4, symmetry.size, generator=rng(seed))
    latents = codec.encode(weights)
    moved = shape.join(shape.split(latents).permuted(order))
    relabelled = symmetry.join(symmetry.split(weights).permuted(order))
    torch.testing.assert_close(codec.encode(relabelled), moved, rtol=1e-3, atol=1e-3)
    copies = symmetry.split(codec.decode(latents)).permuted(order)
    torch.testing.assert_close(codec.decode(moved), symmetry.join(copies), rtol=1e-3, atol=1e-3)


@every
@quick
@given(seed=seeds)
def test_rows_sum_to_zero_and_move_nothing_that_all_outputs_share(kind, seed):
    codec = fitted_codec(kind, True)
    weights = torch.randn(4, codec.symmetry.size, generator=rng(seed))
    latents = codec.encode(weights)
    assert codec.shape.split(latents).rows.sum(1).abs().max() < 1e-3
    alike = latents.clone()
    alike[:, codec.shape.common :] = 0
    copies, without_rows = (codec.symmetry.split(codec.decode(z)) for z in (latents, alike))
    torch.testing.assert_close(copies.common, without_rows.common, rtol=1e-4, atol=1e-4)
    assert (copies.rows - without_rows.rows).abs().max() > 0.01


@every
@quick
@given(count=st.integers(1, 6), seed=seeds)
def test_networks_are_coded_one_by_one(kind, count, seed):
    codec = fitted_codec(kind, True)
    weights = torch.randn(count, codec.symmetry.size, generator=rng(seed))
    latents = codec.encode(weights)
    apart = torch.cat([codec.encode(row[None]) for row in weights])
    torch.testing.assert_close(latents, apart, rtol=1e-4, atol=1e-4)
    copies = torch.cat([codec.decode(row[None]) for row in latents])
    torch.testing.assert_close(codec.decode(latents), copies, rtol=1e-4, atol=1e-4)


@quick
@given(sizes=st.lists(st.integers(1, 9), min_size=0, max_size=5), chunk=st.integers(1, 5))
def test_no_chunk_holds_weights_of_two_layers_and_none_is_left_empty(sizes, chunk):
    layers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    where = chunk_positions(layers, chunk)
    assert (where.diff() > 0).all()
    owners = {}
    for position, layer in zip(where.tolist(), layers.tolist(), strict=True):
        assert owners.setdefault(position // chunk, layer) == layer
    assert len(owners) == sum(-(-size // chunk) for size in sizes)
    assert sorted(owners) == list(range(len(owners)))


@quick
@given(n=st.integers(2, 12), p=st.integers(1, 12), count=st.integers(1, 12), seed=seeds)
def test_components_are_orthonormal_and_reconstruct_best_for_their_number(n, p, count, seed):
    x = torch.randn(n, p, generator=rng(seed))
    found = principal_components(x, count, centre=True)
    kept = len(found.scale)
    assert kept <= min(count, p)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(kept), rtol=0, atol=1e-3)
    lost = (found.decode(found.encode(x)) - x).square().sum()
    tail = torch.linalg.svdvals((x - x.mean(0)).double())[kept:].square().sum()
    assert float(lost) == pytest.approx(float(tail), abs=1e-3)


@quick
@given(
    parts=st.dictionaries(
        st.sampled_from(["a", "b", "ab"]), st.lists(st.sampled_from("xyz"), unique=True)
    )
)
def test_named_parts_come_out_of_the_whole_as_they_went_in(parts):
    tensors = {
        part: {name: torch.zeros(len(part)) for name in names} for part, names in parts.items()
    }
    whole = {}
    for part, own in tensors.items():
        whole |= with_prefix(f"{part}.", own)
    for part, own in tensors.items():
        assert without_prefix(f"{part}.", whole) == own
