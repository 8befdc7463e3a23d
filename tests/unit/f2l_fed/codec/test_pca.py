"""Whitened principal components: lossless where they suffice, the same by either decomposition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.codec import LatentShape, fit_pca
from f2l_fed.matrices import blocks
from f2l_fed.matrices.workspace import Workspace
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from tests.support.small import records, rng, small_target

both = pytest.mark.parametrize("symmetric", [True, False])


def symmetry_of(symmetric):
    return OutputSymmetry.of(small_target(), enabled=symmetric)


def weights_of(count, seed=0):
    return records(symmetry_of(True).size, count, seed)[1]


def trivial(size):
    return OutputSymmetry(torch.arange(size), torch.empty(0, 0, dtype=torch.int64), size)


@both
@pytest.mark.parametrize("count", [5, 120])
def test_with_all_components_training_networks_come_back_as_they_were(symmetric, count):
    weights = weights_of(count)
    codec = fit_pca(weights, symmetry_of(symmetric), common=200, rows=200)
    latents = codec.encode(weights)
    assert latents.shape == (count, codec.shape.size)
    torch.testing.assert_close(codec.decode(latents), weights, rtol=0, atol=1e-4)


@both
def test_too_few_components_lose_something_but_never_more_than_the_mean_does(symmetric):
    weights = weights_of(60)
    spread = (weights - weights.mean(0)).square().sum()
    lost = []
    for count in (1, 2, 4):
        codec = fit_pca(weights, symmetry_of(symmetric), common=count, rows=count)
        lost.append(float((codec.decode(codec.encode(weights)) - weights).square().sum() / spread))
    assert 1 > lost[0] > lost[1] > lost[2] > 0.01


@both
@pytest.mark.parametrize("count", [20, 120])
def test_latents_are_white_over_the_training_networks(symmetric, count):
    weights = weights_of(count)
    codec = fit_pca(weights, symmetry_of(symmetric), common=8, rows=3)
    parts = codec.shape.split(codec.encode(weights))
    torch.testing.assert_close(parts.common.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    for latents in (parts.common, parts.rows.flatten(0, 1)):
        if latents.numel():
            torch.testing.assert_close(
                latents.T @ latents / len(latents), torch.eye(latents.shape[1]), rtol=0, atol=1e-3
            )


def test_components_come_by_falling_variance():
    codec = fit_pca(weights_of(60), symmetry_of(True), common=9, rows=4)
    for scale in (codec.common.scale, codec.rows.scale):
        assert torch.equal(scale, scale.sort(descending=True).values)


@both
def test_more_networks_than_weights_take_another_path_to_the_same_components(symmetric):
    weights, fresh = weights_of(12), weights_of(4, seed=9)
    few = fit_pca(weights, symmetry_of(symmetric), common=6, rows=3)
    # Repeating every network changes no covariance, but which Gram matrix is the smaller one.
    many = fit_pca(weights.repeat(10, 1), symmetry_of(symmetric), common=6, rows=3)
    torch.testing.assert_close(few.common.scale, many.common.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(few.rows.scale, many.rows.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        few.encode(fresh).abs(), many.encode(fresh).abs(), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        few.decode(few.encode(fresh)), many.decode(many.encode(fresh)), rtol=0, atol=1e-3
    )


def test_weights_wider_than_one_block_are_encoded_whole(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 3 * 32_768)
    size = 70_000
    weights = torch.zeros(3, size)
    weights[:, -5:] = torch.randn(3, 5, generator=rng())
    weights[:, :5] = torch.randn(3, 5, generator=rng(1))
    codec = fit_pca(weights, trivial(size), common=5, rows=1)
    assert codec.shape.size == 2
    torch.testing.assert_close(codec.decode(codec.encode(weights)), weights, rtol=0, atol=1e-5)


def same(one, other):
    return all(torch.equal(other.tensors()[name], x) for name, x in one.tensors().items())


@both
@pytest.mark.parametrize("count", [12, 120])
def test_on_a_disk_and_in_many_blocks_it_is_the_same_codec(tmp_path, monkeypatch, symmetric, count):
    weights, symmetry = weights_of(count), symmetry_of(symmetric)
    whole = fit_pca(weights, symmetry, common=9, rows=3)
    work = Workspace(folder=tmp_path)
    stored = work.empty(*weights.shape)
    stored[:] = weights
    assert same(whole, fit_pca(stored, symmetry, common=9, rows=3, work=work))
    monkeypatch.setattr(blocks, "_BLOCK", 7 * count)
    found = fit_pca(stored, symmetry, common=9, rows=3, work=work)
    assert found.common.basis.untyped_storage().filename.startswith(str(tmp_path))
    torch.testing.assert_close(
        found.decode(found.encode(weights)), whole.decode(whole.encode(weights)), rtol=0, atol=1e-5
    )


def test_the_output_layer_is_found_however_many_blocks_lie_before_it(monkeypatch):
    # The second block of columns ends within the mean output row.
    monkeypatch.setattr(blocks, "_BLOCK", 4 * 32_768)
    size = 2 * 32_768 + 5
    symmetry = OutputSymmetry(torch.arange(size - 6), torch.arange(size - 6, size).view(3, 2), size)
    weights = torch.zeros(4, size)
    weights[:, symmetry.output] = torch.randn(4, 3, 2, generator=rng())
    weights[:, 40_000] = torch.randn(4, generator=rng(1))
    codec = fit_pca(weights, symmetry, common=9, rows=9)
    assert codec.shape == LatentShape(common=3, classes=3, width=2)
    torch.testing.assert_close(codec.decode(codec.encode(weights)), weights, rtol=0, atol=1e-5)


def test_shared_labels_leave_no_rows():
    codec = fit_pca(weights_of(20), symmetry_of(False), common=5, rows=5)
    assert codec.shape == LatentShape(common=5, classes=0, width=0)


def test_equal_networks_have_an_empty_latent_and_decode_to_themselves():
    weights = torch.ones(6, symmetry_of(True).size)
    codec = fit_pca(weights, symmetry_of(True), common=5, rows=5)
    assert codec.shape.size == 0
    torch.testing.assert_close(codec.decode(codec.encode(weights)), weights)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_flat_latent_splits_and_joins(classes):
    shape = LatentShape(common=2, classes=classes, width=4)
    latents = torch.arange(2.0 * shape.size).view(2, -1)
    parts = shape.split(latents)
    assert parts.rows.shape == (2, classes, 4)
    assert torch.equal(shape.join(parts), latents)
    assert torch.equal(shape.join(IsotypicParts(parts.common, parts.rows)), latents)


def test_a_truncated_codec_keeps_the_layout_and_the_first_components():
    symmetry = symmetry_of(True)
    weights = weights_of(30)
    codec = fit_pca(weights, symmetry, common=8, rows=4)
    small = replace(codec, common=codec.common.truncated(3), rows=codec.rows.truncated(2))
    assert small.shape == codec.shape
    whole, kept = (codec.shape.split(c.encode(weights)) for c in (codec, small))
    torch.testing.assert_close(kept.common[:, :3], whole.common[:, :3])
    torch.testing.assert_close(kept.rows[..., :2], whole.rows[..., :2])
    assert not bool(kept.common[:, 3:].any() or kept.rows[..., 2:].any())
    # What has no component moves nothing, whatever is drawn there.
    latents = torch.randn(5, codec.shape.size)
    parts = codec.shape.split(latents.clone())
    parts.common[:, 3:], parts.rows[..., 2:] = 0, 0
    torch.testing.assert_close(
        small.decode(latents), codec.decode(codec.shape.join(parts)), rtol=1e-4, atol=1e-5
    )
    moved = small.displacement(torch.zeros_like(latents), latents)
    torch.testing.assert_close(moved, small.decode(latents) - small.decode(0 * latents))
