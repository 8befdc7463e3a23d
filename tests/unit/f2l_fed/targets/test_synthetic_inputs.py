"""Synthetic inputs look like pictures, not like noise, and differ from each other."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.targets.synthetic_inputs import synthetic_inputs
from tests.support.small import rng

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 7, 10), (1, 1, 5), (2, 1, 1), (1, 48, 20)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 40])
def test_pictures_of_any_shape_lie_in_the_unit_interval(shape, count):
    images = synthetic_inputs(shape, count, rng())
    assert images.shape == (count, *shape)
    assert images.dtype == torch.float32
    assert ((images >= 0) & (images <= 1)).all()


def test_vectors_are_standardised_features():
    x = synthetic_inputs((6,), 4000, rng())
    torch.testing.assert_close(x.mean(0), torch.zeros(6), rtol=0, atol=0.1)
    torch.testing.assert_close(x.std(0), torch.ones(6), rtol=0.1, atol=0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (5,)])
def test_equal_seeds_draw_equal_inputs_and_later_draws_are_new(shape):
    draws = rng(4)
    first, second = synthetic_inputs(shape, 20, draws), synthetic_inputs(shape, 20, draws)
    assert torch.equal(synthetic_inputs(shape, 20, rng(4)), first)
    assert not torch.equal(first, second)


def pictures(count=400):
    return synthetic_inputs((1, 28, 28), count, rng(1))[:, 0]


def test_neighbouring_pixels_are_alike_and_far_ones_are_not():
    images = pictures()
    centred = images - images.mean((1, 2), keepdim=True)

    def correlation(distance):
        pairs = (centred[:, :, distance:] * centred[:, :, :-distance]).mean()
        return float(pairs / centred.square().mean())

    assert correlation(1) > 0.7 > correlation(4) > correlation(12)
    assert abs(correlation(12)) < 0.3


def test_grounds_are_dark_in_some_pictures_and_light_in_others():
    images = pictures()
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], dim=1)
    ground = border.median(1).values
    assert (ground < 0.1).float().mean() > 0.15
    assert (ground > 0.9).float().mean() > 0.1
    assert ((ground > 0.2) & (ground < 0.8)).float().mean() > 0.2


def test_contrast_and_the_share_of_edges_vary_from_picture_to_picture():
    images = pictures()
    contrast = images.std((1, 2))
    assert contrast.quantile(0.1) < 0.15
    assert contrast.quantile(0.9) > 0.35
    edges = (images.diff(dim=2).abs() > 0.2).float().mean((1, 2))
    assert edges.quantile(0.1) < 0.02
    assert edges.quantile(0.9) > 0.12


def test_no_two_pictures_are_alike_and_hardly_one_is_empty():
    images = pictures().flatten(1)
    assert (images.std(1) > 0.02).float().mean() > 0.95
    seen = images[images.std(1) > 0.02]
    distances = torch.cdist(seen, seen).fill_diagonal_(torch.inf)
    assert distances.min() > 0.1


def test_channels_differ_in_level_and_not_in_shape():
    images = synthetic_inputs((3, 24, 24), 200, rng())
    colour = images.mean((2, 3)).std(1)
    assert colour.mean() > 0.05
    flat = images.flatten(2) - images.flatten(2).mean(2, keepdim=True)
    alike = torch.nn.functional.cosine_similarity(flat[:, 0], flat[:, 1], dim=1)
    assert alike.median() > 0.9
