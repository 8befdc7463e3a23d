"""Shares add up, a copy is called one, and a release of a real federation is explained."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from f2l_fed.errors import ReleaseError, UsageError
from f2l_fed.explain.attribution import attribution_of, held_out_attribution, refinement_step_of
from f2l_fed.explain.explanation import EXPECTED, distances, explain, relative_changes
from f2l_fed.prior.config import PriorConfig
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.layout import WeightLayout
from server.federation.folder import Federation
from server.generator.explanation import explain_site
from tests.support.conducted import after_rounds
from tests.support.small import records, rng, single, small_target

SITES = tuple(f"site-{index:03}" for index in range(12))
both = pytest.mark.parametrize("symmetric", [True, False])


def fitted(*, symmetric=True):
    symmetry = OutputSymmetry.of(small_target(), enabled=symmetric)
    contexts, weights = single(*records(symmetry.size, len(SITES)))
    anchor = torch.zeros(symmetry.size)
    return refinement_step_of(SITES, contexts, weights, symmetry, PriorConfig(), anchor=anchor)


def relabelled(symmetry, network, order):
    return symmetry.join(symmetry.split(network[None]).permuted(torch.tensor(order)))[0]


@both
def test_the_shares_of_all_sites_add_up_to_the_whole(symmetric):
    step = fitted(symmetric=symmetric)
    origin = attribution_of([step], step.contexts[0, 0] + 0.1)
    found = explain([step], origin, {EXPECTED: origin.network()})
    assert {share.site for share in found.shares} == set(SITES)
    assert sum(share.share for share in found.shares) == pytest.approx(1, abs=1e-4)
    assert found.remainder == pytest.approx(0, abs=1e-4)
    sizes = [abs(share.share) for share in found.shares]
    assert sizes == sorted(sizes, reverse=True)


def test_a_site_without_its_records_has_no_share_in_its_own_network():
    step = fitted()
    origin = held_out_attribution([step], "site-004")
    found = explain([step], origin, {EXPECTED: origin.network()}, site="site-004")
    assert next(share.share for share in found.shares if share.site == "site-004") == 0


def test_a_copy_is_the_nearest_at_distance_zero_whatever_the_order_of_its_labels():
    step = fitted()
    symmetry = step.fit.prior.symmetry
    copy = relabelled(symmetry, step.weights[7, 0], [2, 0, 1])
    origin = attribution_of([step], step.contexts[0, 0])
    found = explain([step], origin, {EXPECTED: origin.network(), "copy": copy})
    assert found.nearest["copy"].site == "site-007"
    assert found.nearest["copy"].distance == pytest.approx(0, abs=1e-5)
    assert found.nearest["copy"].percentile == 0
    assert found.nearest[EXPECTED].distance > 0.1


def test_a_sites_own_record_is_no_sign_of_a_copy():
    step = fitted()
    origin = held_out_attribution([step], "site-007")
    networks = {EXPECTED: origin.network(), "own": step.weights[7, 0]}
    nearest = explain([step], origin, networks, site="site-007").nearest["own"]
    assert nearest.site != "site-007"
    assert nearest.distance > 0.1


def test_with_shared_labels_another_order_is_another_network():
    step = fitted()
    shared = OutputSymmetry.of(small_target(), enabled=False)
    network = step.weights[3, 0]
    other = relabelled(step.fit.prior.symmetry, network, [1, 2, 0])
    assert float(distances(shared, network, network[None, None])) == 0
    assert float(distances(shared, network, other[None, None])) > 0.1
    assert float(distances(step.fit.prior.symmetry, network, other[None, None])) < 1e-6


def test_a_distance_is_that_to_the_nearest_record_of_a_site():
    shared = OutputSymmetry.of(small_target(), enabled=False)
    others = torch.randn(4, 3, shared.size, generator=rng(2))
    network = torch.randn(shared.size, generator=rng(3))
    expected = (others - network).norm(dim=2).min(dim=1).values
    torch.testing.assert_close(distances(shared, network, others).float(), expected)


def test_change_of_a_tensor_is_relative_to_its_own_length():
    layout = WeightLayout(("w", "b"), ((2, 2), (2,)))
    before = torch.tensor([3.0, 0, 0, 4.0, 0, 0])
    after = torch.tensor([3.0, 0, 0, 3.0, 0, 0])
    assert relative_changes(layout, before, after) == {"w": pytest.approx(0.2), "b": None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return after_rounds(tmp_path_factory.mktemp("explained") / "out", 4)


def test_every_release_is_explained_down_to_rounding(finished):
    for id in finished.releases.ids():
        release = finished.releases.read(id)
        found = explain_site(finished, release, "site-002")
        assert found.learned_in[-1] == id
        assert found.origin.remainder == pytest.approx(0, abs=1e-3)
        own = next(share for share in found.origin.shares if share.site == "site-002")
        assert own.share == 0
        assert EXPECTED in found.origin.nearest
        assert all(near.site != "site-002" for near in found.origin.nearest.values())


def test_what_refines_is_explained_back_to_where_the_anchor_stopped(finished):
    *_, last = finished.releases.ids()
    found = explain_site(finished, finished.releases.read(last), "site-001")
    assert len(found.learned_in) >= 2


def test_the_change_under_fine_tuning_is_given_for_every_tensor(finished):
    release = finished.releases.read("00004")
    tuned = explain_site(finished, release, "site-003").fine_tuning
    assert tuned is not None
    assert (tuned.round, tuned.release) == (4, "00003")
    assert set(tuned.changes) == set(finished.target.layout.names)
    moved = [change for change in tuned.changes.values() if change is not None]
    assert moved
    assert all(math.isfinite(change) and change > 0 for change in moved)


def test_an_unknown_site_is_named_with_one_like_it(finished):
    with pytest.raises(UsageError, match="knows no such site") as caught:
        explain_site(finished, finished.releases.read("00002"), "site-0O3")
    assert "site-003" in str(caught.value)


def test_a_release_with_an_erased_record_says_so(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "copy")
    federation = Federation.open(tmp_path / "copy")
    federation.zoo.forget("site-005")
    with pytest.raises(ReleaseError, match="without a record that it learned from"):
        explain_site(federation, federation.releases.read("00002"), "site-001")
