"""The gate lets the map through for known classes and takes it back for strangers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from f2l_fed.prior.likeness import LikenessGate, _as_strangers, fit_gate, mean_likeness
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.prior.row_clusters import RowClusters
from tests.support.classes import drawn_heads, rows_alone


def fitted(drawn, *, gated=True):
    anchor = torch.zeros(drawn.symmetry.size)
    return fit_prior(*drawn.flat, drawn.symmetry, anchor, gated=gated)


def strangers(drawn, *, sites=40, seed=9):
    """Contexts and rows of sites with classes of other directions than those that are known."""
    return drawn_heads(sites=sites, seed=seed, width=drawn.weights.shape[3])


def factors(gate, drawn, prior):
    """The factors at sites, of a prior without a gate, (sites * pairs,)."""
    contexts = drawn.flat[0].flatten(0, 1)
    known, expected = (drawn.symmetry.split(w).rows for w in (contexts, prior(contexts)))
    return gate(known, expected - known)


def error(prior, drawn):
    contexts, weights = (rows.flatten(0, 1) for rows in drawn.flat)
    return float((prior(contexts) - weights).square().mean())


def test_known_classes_pass_and_strangers_do_not():
    drawn = drawn_heads()
    plain, gate = fitted(drawn, gated=False).prior, fitted(drawn).prior.gate
    known = factors(gate, strangers(drawn, seed=0), plain)
    strange = factors(gate, strangers(drawn), plain)
    assert float(known.mean()) > 0.9
    assert float(strange.mean()) < 0.7
    assert float(strange.quantile(0.95)) < float(known.quantile(0.05))
    assert bool((gate.factors.diff() >= 0).all())
    assert bool((gate.likeness.diff() >= 0).all())
    assert float(gate.factors.min()) >= 0
    assert float(gate.factors.max()) <= 1.2


def test_the_gate_helps_strangers_and_costs_known_classes_little():
    drawn = drawn_heads()
    plain, gated = fitted(drawn, gated=False).prior, fitted(drawn).prior
    assert error(gated, strangers(drawn)) < 0.95 * error(plain, strangers(drawn))
    other = drawn_heads(seed=0, sites=60)
    assert error(gated, other) < 1.03 * error(plain, other)


def test_held_out_predictions_are_gated_by_the_likeness_to_other_sites():
    drawn = drawn_heads(sites=12)
    plain, gated = fitted(drawn, gated=False), fitted(drawn)
    contexts, _ = drawn.flat
    added = plain.held_out - contexts
    torch.testing.assert_close(
        gated.held_out, contexts + gated.factors[..., None] * added, rtol=1e-4, atol=1e-5
    )
    assert gated.factors.unique().numel() > 1
    assert torch.equal(plain.factors, torch.ones(12, 3))


def test_a_site_that_alone_has_its_classes_is_a_stranger_to_the_others():
    drawn = drawn_heads(sites=16)
    odd = strangers(drawn, sites=1)
    contexts = torch.cat([drawn.contexts, odd.contexts])
    weights = torch.cat([drawn.weights, odd.weights])
    anchor = torch.zeros(drawn.symmetry.size)
    fit = fit_prior(contexts.flatten(2), weights.flatten(2), drawn.symmetry, anchor, gated=True)
    assert float(fit.factors[-1].mean()) < float(fit.factors[:-1].mean()) - 0.1


def test_few_sites_have_no_gate():
    drawn = drawn_heads(sites=7)
    assert not len(fitted(drawn).prior.gate.centroids)
    assert torch.equal(fitted(drawn).held_out, fitted(drawn, gated=False).held_out)


def test_the_order_of_classes_and_absent_ones_change_nothing():
    drawn = drawn_heads(sites=10)
    prior = fitted(drawn).prior
    contexts = drawn.contexts[:, 0]
    order = torch.tensor([2, 0, 3, 1])
    nothing = torch.zeros_like(contexts)
    usual = prior.gate(contexts, nothing)
    torch.testing.assert_close(prior.gate(contexts[:, order], nothing), usual)
    padded = torch.cat([contexts, torch.zeros_like(contexts)], dim=1)
    torch.testing.assert_close(prior.gate(padded, torch.zeros_like(padded)), usual)


def test_likeness_is_the_mean_over_rows_of_the_largest_cosine():
    rows = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]]])
    centroids = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(mean_likeness(rows, centroids), torch.tensor([(0.8 + 0.0) / 2]))


def test_factors_are_linear_between_and_constant_beyond():
    gate = LikenessGate(
        centroids=functional.normalize(torch.ones(1, 2), dim=1),
        likeness=torch.tensor([0.2, 0.6]),
        factors=torch.tensor([0.5, 1.0]),
    )
    found = gate.factors_at(torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.75, 1.0, 1.0]))


def test_contexts_of_fewer_examples_are_less_sure_of_their_likeness():
    drawn = drawn_heads()
    gate = fitted(drawn).prior.gate
    rows = strangers(drawn).contexts[:, 0]
    usual = rows * (gate.length / rows.norm(dim=2).mean(1))[:, None, None]
    full, half, longer = (gate(scale * usual, 0 * usual) for scale in (1.0, 0.5, 2.0))
    assert float(full.max()) < 0.9
    torch.testing.assert_close(half, 1 - (1 - full) / 2)
    torch.testing.assert_close(longer, full)


def test_an_open_gate_changes_no_bit():
    rows = torch.randn(3, 4, 5)
    assert torch.equal(LikenessGate.open()(rows, rows), torch.ones(3))


def test_a_stranger_is_predicted_by_a_map_of_heads_without_its_classes():
    """As heads of other sites would be if nobody had trained with those classes."""
    drawn = drawn_heads(sites=10)
    contexts, moved = drawn.contexts, drawn.weights - drawn.contexts
    clusters, strength, pairs = RowClusters.of(drawn.weights), 0.7, torch.arange(3)
    found = _as_strangers(contexts, moved, clusters, torch.tensor([4]), pairs, strength)
    left, right = [], []
    own = set(clusters.labels[4].flatten().tolist())
    for site in (0, 1, 2, 3, 5, 6, 7, 8, 9):
        for pair in range(3):
            kept = [
                r for r, label in enumerate(clusters.labels[site, pair]) if int(label) not in own
            ]
            if kept:
                for into, rows in ((left, contexts), (right, moved)):
                    into.append(rows[site, pair, kept] - rows[site, pair, kept].mean(0))
    x, y = torch.cat(left).double(), torch.cat(right).double()
    matrix = torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1]).double(), x.T @ y)
    mine = contexts[4].double() @ matrix
    torch.testing.assert_close(found[0].double(), mine, rtol=1e-4, atol=1e-5)


def test_rows_that_stay_do_not_tell_what_was_left_out():
    """Where all heads have one class against others, a stranger to it learns nothing of it."""
    width, sites = 6, 12
    known = torch.eye(width)
    heads = torch.stack([known[[0, 1 + site % 3, 4 + site % 2]] for site in range(sites)])
    weights = (heads - heads.mean(1, keepdim=True))[:, None].expand(-1, 2, -1, -1)
    contexts, clusters = weights * 0.5, RowClusters.of(weights)
    # A class of its own, which the others' rows are less by.
    found = _as_strangers(
        contexts, weights - contexts, clusters, torch.tensor([0]), torch.arange(2), 1e-3
    )
    assert float(found[0, :, :, 0].abs().max()) < 1e-3


def test_the_gate_is_that_of_the_fit_on_flat_heads():
    drawn = drawn_heads(sites=9)
    fit = fitted(drawn)
    plain = fitted(drawn, gated=False)
    added = (plain.held_out - drawn.flat[0]).view_as(drawn.weights)
    again = fit_gate(drawn.contexts, drawn.weights, added, plain.rows.strength)
    torch.testing.assert_close(fit.prior.gate.factors, again.gate.factors, rtol=1e-4, atol=1e-4)
    assert rows_alone(4, 40).rows_alone


def test_padding_that_rounding_has_left_a_trace_in_counts_for_nothing():
    rows = torch.tensor([[[3.0, 4.0], [-3.0, -4.0], [1e-8, -1e-8]]])
    centroids = torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    torch.testing.assert_close(mean_likeness(rows, centroids), torch.tensor([(1.0 + 0.6) / 2]))


def sites_in(gate, rows):
    """(m,) int64, the number of sites with a row nearest to each centroid."""
    nearest = (functional.normalize(rows, dim=3) @ gate.centroids.T).argmax(3)
    return functional.one_hot(nearest, len(gate.centroids)).amax((1, 2)).sum(0)


def test_no_centroid_is_of_fewer_sites_than_asked_for():
    drawn = drawn_heads(sites=12, known=30)
    gate = fitted(drawn).prior.gate
    assert int(sites_in(gate, drawn.weights).min()) < 3
    shared = gate.with_shared_centroids(drawn.weights, 3)
    assert 1 <= len(shared.centroids) < len(gate.centroids)
    assert int(sites_in(shared, drawn.weights).min()) >= 3
    torch.testing.assert_close(shared.centroids.norm(dim=1), torch.ones(len(shared.centroids)))
    own = functional.normalize(drawn.weights, dim=3).flatten(0, 2) @ shared.centroids.T
    assert float(own.max()) < 0.99


def test_centroids_of_many_sites_stay_as_they_are_and_those_of_none_go():
    known = torch.eye(4)
    one = LikenessGate(
        centroids=known[:3], likeness=torch.tensor([0.1, 0.9]), factors=torch.tensor([0.5, 1.0])
    )
    # Five sites, each with rows near two of the three.
    pairs = torch.tensor([[0, 1], [1, 2], [0, 2], [0, 1], [1, 2]])
    rows = known[pairs][:, None] + 0.01 * torch.arange(40.0).view(5, 1, 2, 4) / 40
    assert torch.equal(one.with_shared_centroids(rows, 3).centroids, one.centroids)
    more = replace(one, centroids=known)
    assert torch.equal(more.with_shared_centroids(rows, 3).centroids, one.centroids)
    # Three sites have the first, four the second, three the last: too few, until all are one.
    assert len(one.with_shared_centroids(rows, 4).centroids) == 1


def test_an_open_gate_has_no_centroids_to_share():
    gate = LikenessGate.open()
    assert gate.with_shared_centroids(drawn_heads().weights, 3) is gate


def test_nothing_of_erased_sites_is_left_in_centroids_that_are_made_anew():
    drawn = drawn_heads(sites=16, known=4)
    gate, rows = fitted(drawn).prior.gate, drawn.weights[:12]
    kept, anew = (gate.with_shared_centroids(rows, 3, anew=anew) for anew in (False, True))
    units = functional.normalize(rows, dim=3).flatten(0, 2)
    nearest = (units @ kept.centroids.T).argmax(1)
    for number, centroid in enumerate(anew.centroids):
        mean = functional.normalize(units[nearest == number].sum(0), dim=0)
        torch.testing.assert_close(centroid, mean, rtol=1e-4, atol=1e-4)
    assert not torch.equal(kept.centroids, anew.centroids)
