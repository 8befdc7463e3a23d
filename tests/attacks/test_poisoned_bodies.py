"""Sites that lie in the body or in their heads, in real rounds, and a centre that serves a body."""

from __future__ import annotations

import dataclasses
from statistics import fmean

import pytest
import torch

from clients.site.model_store import load_model
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.local_training.logistic_head import flat, rows
from f2l_fed.local_training.probe import first_anchor
from f2l_fed.targets.body import body_digest
from f2l_fed.wire.packing import pack_task, unpack_refusal
from server.cluster.held_out import curves_of
from server.simulation.setup import held_out_sites
from tests.support.liars import with_body_liars
from tests.support.sites import BODY, FIRST_BODY, body_task, digits_site
from tests.support.small_federation import ANY_RELEASE, FEW, small_federation
from tests.unit.clients.test_client_app import ask

SETTINGS = (
    *FEW,
    *ANY_RELEASE,
    "target.adapt=head",
    "head.pairs=2",
    "episodes.first=20",
    "episodes.steps=10",
)
SITES, ROUNDS = 10, 2
LIARS = ("site-001", "site-004", "site-007")


def run(out, attack=None, liars=LIARS):
    """The federation after two rounds, and the mean accuracy of new sites' networks, unmoved."""
    federation, divided = small_federation(out, sites=SITES, held_out=6, settings=SETTINGS)
    lies = dict.fromkeys(liars, attack) if attack else {}
    states = with_body_liars(federation, lies).run(ROUNDS, SITES)
    assert [state.promoted for state in states] == [True] * ROUNDS, states
    parts = held_out_sites(divided)
    sites = [site for some in parts.values() for site in some or ()]
    curves = curves_of(federation.root, states[-1].release, sites, (GENERATED,))
    return federation, states, fmean(curves[site.name][GENERATED][0] for site in sites)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return run(tmp_path_factory.mktemp("clean"))


def moved(update, task, body):
    return dataclasses.replace(update, body=body)


def flipped_body(update, task, rng):
    """The change of the body times -5."""
    return moved(update, task, task.anchor - 5 * (update.body - task.anchor))


def zero_body(update, task, rng):
    return moved(update, task, torch.zeros_like(update.body))


def huge_body(update, task, rng):
    return moved(update, task, 1e15 * torch.randn(update.body.shape, generator=rng))


def overflowing_body(update, task, rng):
    return moved(update, task, torch.full_like(update.body, 1e30))


def body_without_numbers(update, task, rng):
    body = update.body.clone()
    body[5] = torch.nan
    return moved(update, task, body)


def flipped_heads(update, task, rng):
    """The heads on all examples times -5."""
    return dataclasses.replace(update, weights=-5 * update.weights)


def permuted_heads(update, task, rng):
    """The heads on all examples with their outputs in another order."""
    turned = [flat(rows(head, 5).roll(1 + number, 0)) for number, head in enumerate(update.weights)]
    return dataclasses.replace(update, weights=torch.stack(turned))


def lost(clean, accuracy):
    return 100 * (clean[2] - accuracy)


@pytest.mark.parametrize("attack", [flipped_body, zero_body, huge_body])
def test_bodies_of_liars_move_the_next_one_little(tmp_path, clean, attack):
    federation, states, accuracy = run(tmp_path, attack)
    # The average bears them: they are not left out.
    assert len({*LIARS} & {*federation.releases.read(states[0].release).body_sites}) >= 2
    assert lost(clean, accuracy) < 5
    first, last = (one.anchor(None) for one in (federation, clean[0]))
    assert torch.equal(first, last)
    now = federation.next_anchor(federation.releases.read(states[0].release)) - first
    honest = clean[0].next_anchor(clean[0].releases.read(clean[1][0].release)) - first
    assert float(torch.cosine_similarity(now, honest, dim=0)) > 0.7
    assert float(now.norm()) < 1.5 * float(honest.norm())


@pytest.mark.parametrize("attack", [overflowing_body, body_without_numbers])
def test_bodies_that_are_not_finite_are_rejected_with_their_heads(tmp_path, clean, attack):
    federation, states, accuracy = run(tmp_path, attack)
    assert set(states[-1].rejected) == set(LIARS)
    assert all("not finite" in reason for reason in states[-1].rejected.values())
    release = federation.releases.read(states[-1].release)
    assert not set(LIARS) & {*release.sites, *release.body_sites}
    assert lost(clean, accuracy) < 5


@pytest.mark.parametrize("attack", [flipped_heads, permuted_heads])
def test_heads_of_liars_are_in_no_release(tmp_path, clean, attack):
    federation, states, accuracy = run(tmp_path, attack)
    release = federation.releases.read(states[-1].release)
    assert not set(LIARS) & {*release.sites, *release.body_sites}
    # The reasons are in the release, or admission has kept them out before.
    assert set(LIARS) <= {*release.left_out, *states[-1].rejected, *states[-1].quarantined}
    assert len(release.sites) >= SITES - len(LIARS) - 1
    assert lost(clean, accuracy) < 5


def test_nobody_is_left_out_where_nobody_lies(clean):
    federation, states, accuracy = clean
    release = federation.releases.read(states[-1].release)
    assert len(release.sites) >= SITES - 1
    assert len(release.body_sites) >= SITES - 1
    assert accuracy > 0.6


def served(site, *bodies, **changes):
    found = unpack_refusal(ask(site, pack_task(body_task(*bodies, **changes))))
    return found.code if found else ""


@pytest.mark.parametrize("more", ["", "[privacy]\nepsilon = 8.0\ndelta = 1e-3\n"])
def test_a_site_trains_no_body_of_the_centres_own(tmp_path, more):
    """A body that was made to read examples is none that a lineage comes to by itself."""
    site = digits_site(tmp_path, more=more)
    made = FIRST_BODY + torch.randn(FIRST_BODY.shape, generator=torch.Generator().manual_seed(1))
    near = FIRST_BODY + 0.1 * FIRST_BODY
    chain = (body_digest(made),)
    assert served(site, anchor=made, chain=chain) == "body-not-rebuilt"
    other = first_anchor(BODY.network, BODY, "test/1")
    chain = (body_digest(other),)
    assert served(site, anchor=other, chain=chain) == "body-not-rebuilt"
    assert served(site, near, 9 * near) == "body-changed-too-much"
    assert served(site, near) == ""
    chain = tuple(map(body_digest, (other, near)))
    assert served(site, near, chain=chain) == "body-of-another-lineage"
    bad = near.clone()
    bad[2] = torch.nan
    assert served(site, near, bad) == "not-finite"
    kept = load_model(tmp_path / "state")
    assert kept is not None
    assert kept.facts.round == 2
