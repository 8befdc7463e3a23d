"""Collapse, copying and dead conditioning are found."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import mannwhitneyu

from f2l_fed.audit.diagnostics import (
    Audit,
    conditioning,
    dispersion,
    explained,
    leave_one_out_distances,
    max_error_iou,
    memorisation_z,
    nearest_distances,
)
from f2l_fed.audit.release_limits import GateConfig, decide
from f2l_fed.errors import UsageError

GOOD = {"explained": 0.4, "conditioning": 0.6, "dispersion": 0.95}


def draws(n, size=12, seed=0):
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def test_dispersion_is_one_for_draws_of_the_same_distribution_and_zero_after_collapse():
    real = draws(400) + 3
    assert dispersion(draws(400, seed=1) + 3, real) == pytest.approx(1, abs=0.05)
    assert dispersion(real[:1].expand(10, -1), real) == pytest.approx(0, abs=1e-6)
    assert dispersion(2 * real, real) == pytest.approx(2)


def test_a_handful_of_networks_does_not_look_collapsed():
    real = draws(500)
    few = [dispersion(draws(3, seed=seed), real) ** 2 for seed in range(1, 200)]
    assert sum(few) / len(few) == pytest.approx(1, abs=0.05)


def test_nearest_distances_are_those_of_all_pairs():
    a, b = draws(7, 33), draws(9, 33, seed=1)
    pairs = torch.cdist(a.double(), b.double())
    torch.testing.assert_close(nearest_distances(a, b), pairs.min(dim=1).values)
    pairs = torch.cdist(a.double(), a.double()).fill_diagonal_(torch.inf)
    torch.testing.assert_close(leave_one_out_distances(a), pairs.min(dim=1).values)


def test_a_copy_is_at_distance_zero_even_far_from_the_origin_and_among_many_columns():
    real = draws(5, 40_000) * 1e-3 + 1000
    assert nearest_distances(real[2:4], real).tolist() == [0, 0]
    assert leave_one_out_distances(torch.cat([real, real[1:2]]))[5] == 0


def test_no_rows_have_no_distances():
    assert nearest_distances(draws(0), draws(3)).shape == (0,)


def test_copies_are_found_and_new_networks_are_innocent():
    train, held_out = draws(60), draws(40, seed=1)
    copies = train[:40] + 0.05 * draws(40, seed=2)
    assert memorisation_z(copies, train, held_out) < -6
    assert abs(memorisation_z(draws(40, seed=3), train, held_out)) < 2.5
    assert memorisation_z(3 * draws(40, seed=3), train, held_out) > 6


def test_the_z_score_is_that_of_mann_and_whitney_with_ties():
    train = torch.zeros(1, 1)
    generated = torch.tensor([[1.0], [1], [2], [3], [3], [5], [8]])
    held_out = torch.tensor([[1.0], [2], [2], [3], [4], [4], [9], [9]])
    reference = mannwhitneyu(
        generated.flatten(), held_out.flatten(), method="asymptotic", use_continuity=False
    )
    z = memorisation_z(generated, train, held_out)
    count = sum((g > h) + 0.5 * (g == h) for g in generated.flatten() for h in held_out.flatten())
    assert (z < 0) == (count < 28)
    p = 2 * torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-abs(z)))
    assert float(p) == pytest.approx(reference.pvalue, rel=1e-5)


def test_all_distances_equal_is_no_evidence():
    train = torch.zeros(1, 2)
    same = torch.ones(9, 2)
    assert memorisation_z(same, train, same) == 0


def test_error_overlap_is_one_for_a_copy_and_zero_for_networks_without_common_errors():
    a = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    b = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=torch.bool)
    assert max_error_iou(a, b).tolist() == pytest.approx([1, 0, 1 / 3])


def test_predictions_explain_all_nothing_or_less():
    weights = draws(20) + 5
    assert explained(weights, weights) == 1
    of_others = (weights.sum(dim=0) - weights) / (len(weights) - 1)
    assert explained(weights, of_others) == pytest.approx(0, abs=1e-6)
    assert explained(weights, torch.zeros_like(weights)) < -1


def test_conditioning_is_worth_something_only_if_the_context_matters():
    weights = draws(50)
    assert conditioning(weights, weights + 0.1 * draws(50, seed=1)) > 1.5
    of_others = (weights.sum(dim=0) - weights) / (len(weights) - 1)
    assert conditioning(weights, of_others) == pytest.approx(0, abs=0.01)
    assert conditioning(weights, weights.roll(-1, dims=0)) < -1.5


@pytest.mark.parametrize("n", [2, 3, 4, 20])
def test_dead_conditioning_is_worth_nothing_among_few_networks_too(n):
    weights = draws(n, size=500)
    of_others = (weights.sum(dim=0) - weights) / (n - 1)
    assert conditioning(weights, of_others) == pytest.approx(0, abs=0.04)


def test_an_audit_takes_every_figure_and_leaves_out_what_it_could_not():
    weights, noise = draws(30), 0.1 * draws(30, seed=1)
    audit = Audit.of(weights, weights + noise, draws(30, seed=2), draws(30, seed=3))
    assert audit.figures().keys() == {*GOOD, "memorisation_z"}
    assert decide(audit.figures(), GateConfig()).passed
    assert Audit.of(weights, weights, weights).figures().keys() == GOOD.keys()


def test_a_generator_that_copies_or_collapses_is_held():
    weights, held_out = draws(30), draws(30, seed=3)
    copied = Audit.of(weights, weights, weights, held_out)
    (reason,) = decide(copied.figures(), GateConfig()).reasons
    assert reason.startswith("memorisation_z is -7.")
    collapsed = Audit.of(weights, weights, weights.mean(dim=0).expand(30, -1))
    (reason,) = decide(collapsed.figures(), GateConfig()).reasons
    assert reason.startswith("dispersion is ")
    assert reason.endswith("below the limit of 0.5.")


def test_too_few_networks_are_refused_instead_of_judged():
    with pytest.raises(UsageError, match="generated"):
        dispersion(draws(1), draws(5))
    with pytest.raises(UsageError, match="all equal"):
        dispersion(draws(4), torch.ones(4, 12))
    with pytest.raises(UsageError, match="real"):
        leave_one_out_distances(draws(1))
    with pytest.raises(UsageError, match="held_out"):
        memorisation_z(draws(3), draws(3), draws(0))
