"""Rounds in which some sites, or all, have a privacy budget and share a body with the others."""

from __future__ import annotations

import pytest
import torch

from clients.site.model_store import load_model
from clients.site.site import open_site
from server.cluster.held_out import curves_of
from server.federation.body_updates import BodyUpdates
from server.generator.gate import objections
from server.simulation.setup import held_out_sites
from tests.support.inline import run_inline
from tests.support.small_federation import ANY_RELEASE, FEW, small_federation

BODY = (*FEW, *ANY_RELEASE, "target.adapt=head", "head.pairs=2", "episodes.first=6")
PRIVATE = "\n[privacy]\nepsilon = 8.0\ndelta = 1e-4\nanswers = 3\n"


def with_private(out, count, sites=4, more=()):
    """A federation whose first sites have a privacy budget, its held-out sites and its files."""
    federation, divided = small_federation(out, sites=sites, settings=(*BODY, *more))
    files = sorted((out / "sites").glob("*/site.toml"))
    for path in files[:count]:
        path.write_text(path.read_text() + PRIVATE)
    return federation, held_out_sites(divided), files


def records_of(federation):
    return {record.site for record in federation.zoo.snapshot().records()}


def test_private_and_plain_sites_train_one_body_and_the_plain_ones_its_heads(tmp_path):
    federation, _, files = with_private(tmp_path, 2)
    states = run_inline(federation, 2)
    assert [state.promoted for state in states] == [True, True], states
    assert [len(state.accepted) for state in states] == [4, 4]
    release = federation.releases.promoted()
    assert release.sites == ("site-002", "site-003")
    assert release.body_sites == ("site-000", "site-001", "site-002", "site-003")
    assert records_of(federation) == {"site-002", "site-003"}
    assert release.figures
    budgets = [open_site(path).budget for path in files]
    assert [budget is not None for budget in budgets] == [True, True, False, False]
    assert [budget.spent()["answers"] for budget in budgets[:2]] == [2, 2]
    assert all(load_model(path.parent / "state") is not None for path in files)


def test_private_sites_alone_train_a_body_with_a_prior_that_adds_nothing(tmp_path):
    federation, parts, files = with_private(tmp_path, 4)
    states = run_inline(federation, 2)
    assert [state.promoted for state in states] == [True, True], states
    release = federation.releases.promoted()
    assert (release.sites, release.records, release.figures) == ((), (), {})
    assert len(release.body_sites) == 4
    assert len(release.chain) == 3
    assert not federation.zoo.snapshot().records()
    generator = federation.releases.generator(release.id)
    contexts = torch.randn(3, federation.target.layout.size)
    assert torch.equal(generator.expect(contexts), contexts)
    assert not torch.equal(generator.bodies.own, generator.bodies.next)
    held_out = parts["seen"]
    curves = curves_of(federation.root, release.id, held_out)
    assert set(curves) == {site.name for site in held_out}
    models = [load_model(path.parent / "state") for path in files]
    assert all(model.facts.release == states[0].release for model in models)


def test_a_spent_budget_is_a_refusal_and_the_round_goes_on_without(tmp_path):
    federation, _, _ = with_private(tmp_path, 1, sites=3)
    states = run_inline(federation, 4)
    assert [state.promoted for state in states] == [True] * 4, states
    assert set(states[-1].rejected) == {"site-000"}
    assert "(privacy-budget-spent)" in states[-1].rejected["site-000"]
    assert federation.releases.promoted().body_sites == ("site-001", "site-002")


def test_too_few_sites_of_any_kind_make_no_release(tmp_path):
    federation, _, _ = with_private(tmp_path, 3, sites=3, more=("round.minimum=4",))
    (state,) = run_inline(federation, 1)
    assert "too few sites for a retraining" in state.reason
    assert federation.releases.promoted() is None


@pytest.mark.parametrize("private", [1, 2])
def test_one_sites_heads_are_no_prior(tmp_path, private):
    federation, _, _ = with_private(tmp_path, private, sites=private + 1)
    (state,) = run_inline(federation, 1)
    assert state.promoted, state
    release = federation.releases.promoted()
    assert release.sites == ()
    assert len(release.body_sites) == private + 1
    assert objections(federation, release)  # Another one is handed out: itself.


def test_the_next_body_is_one_that_sites_go_along_with(tmp_path):
    """Much noise of few sites would move it further than the site's policy allows."""
    federation, _, files = with_private(tmp_path, 2, sites=2)
    for path in files:
        path.write_text(path.read_text().replace("epsilon = 8.0", "epsilon = 0.5"))
    states = run_inline(federation, 3)
    assert [len(state.accepted) for state in states] == [2, 2, 2], states
    updates = BodyUpdates.of(federation.root).read(states[-1].parent)
    body = federation.next_anchor(federation.releases.read(states[-1].parent))
    assert all(float((one.body - body).norm()) > 2 * float(body.norm()) for one in updates)
