"""Rows of the same class fall into one cluster, and a site can be taken out of the centroids."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from f2l_fed.prior.row_clusters import RowClusters
from tests.support.classes import drawn_heads


def test_rows_of_a_class_share_a_cluster_and_those_of_two_classes_do_not():
    drawn = drawn_heads(noise=0.1)
    # Without the sites' own means, which move all rows of a site.
    rows = drawn.prototypes[drawn.classes][:, None].expand_as(drawn.weights)
    rows = rows + 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    clusters = RowClusters.of(rows)
    classes = drawn.classes[:, None].expand(clusters.labels.shape)
    assert len(clusters.centroids) == len(drawn.prototypes)
    for own in classes.unique():
        (label,) = clusters.labels[classes == own].unique()
        assert bool((classes[clusters.labels == label] == own).all())
    assert int(clusters.counts.sum()) == classes.numel()


def test_centroids_are_mean_directions_of_unit_length():
    drawn = drawn_heads()
    clusters = RowClusters.of(drawn.weights)
    units = functional.normalize(drawn.weights, dim=3)
    for label, centroid in enumerate(clusters.centroids):
        mean = units[clusters.labels == label].sum(0)
        torch.testing.assert_close(centroid, mean / mean.norm())


def test_the_centroids_without_a_site_are_those_of_the_others_alone():
    drawn = drawn_heads(sites=8)
    clusters = RowClusters.of(drawn.weights)
    left = torch.arange(8) != 3
    units = functional.normalize(drawn.weights, dim=3)[left]
    labels = clusters.labels[left]
    expected = [
        functional.normalize(units[labels == label].sum(0), dim=0) for label in labels.unique()
    ]
    torch.testing.assert_close(list(clusters.centroids_without_each())[3], torch.stack(expected))


def test_a_cluster_that_only_one_site_has_goes_with_it():
    rows = torch.eye(4)[torch.tensor([[0, 1], [0, 1], [2, 3], [0, 1]])][:, None]
    rows = rows + 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    clusters = RowClusters.of(rows)
    assert len(list(clusters.centroids_without_each())[2]) < len(clusters.centroids)


@pytest.mark.parametrize("classes", [2, 3])
def test_rows_of_absent_classes_change_nothing(classes):
    drawn = drawn_heads(each=classes)
    padded = torch.cat([drawn.weights, torch.zeros_like(drawn.weights)], dim=2)
    some, more = RowClusters.of(drawn.weights), RowClusters.of(padded)
    assert torch.equal(some.labels, more.labels[:, :, :classes])
    torch.testing.assert_close(some.centroids, more.centroids)
    assert torch.equal(some.counts, more.counts)


def test_more_rows_than_are_clustered_all_get_a_label():
    drawn = drawn_heads(sites=300, pairs=2)
    clusters = RowClusters.of(drawn.weights)
    assert int(clusters.counts.sum()) == 300 * 2 * 4


def test_equal_rows_of_a_site_are_one():
    """On vectors all pairs of a site have one head on all examples; it is no class of its own."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 8, generator=draws)
    chosen = torch.stack([torch.randperm(6, generator=draws)[:3] for _ in range(20)])
    once = centres[chosen] + 0.3 * torch.randn(20, 3, 8, generator=draws)
    clusters = RowClusters.of(once[:, None].expand(-1, 16, -1, -1))
    assert len(clusters.centroids) == len(RowClusters.of(once[:, None]).centroids) == 6
