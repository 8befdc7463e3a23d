"""Rounds in which the sites train a shared body and return heads."""

from __future__ import annotations

import json

import pytest
import torch

from clients.site.model_store import load_model, load_start
from clients.site.site import open_site
from f2l_fed.errors import ReleaseError
from f2l_fed.evaluation.arm_names import GENERATED, keys
from f2l_fed.targets.body import body_digest
from server.cluster.held_out import measurements_of
from server.erasure import affected_releases, erase_site
from server.federation.body_updates import BodyUpdates
from server.generator.explanation import explain_site
from server.simulation.setup import held_out_sites
from server.simulation.training_sites import training_accuracy
from tests.support.inline import run_inline
from tests.support.small_federation import events, small_federation

ON_A_BODY = (
    "target.adapt=head",
    "episodes.first=6",
    "episodes.steps=4",
    "episodes.query=5",
    "head.pairs=3",
    "later.steps=3",
)


@pytest.fixture(scope="module")
def conducted(tmp_path_factory):
    """A federation after three rounds, and its data."""
    out = tmp_path_factory.mktemp("on_a_body") / "out"
    federation, divided = small_federation(out, settings=ON_A_BODY)
    states = run_inline(federation, 3)
    assert [state.step for state in states] == ["done"] * 3
    return federation, divided, states


def test_every_round_moves_the_body_and_heads_are_of_the_body_before(conducted):
    federation, _, _ = conducted
    releases = [federation.releases.read(id) for id in ("00001", "00002", "00003")]
    first = federation.anchor(None)
    bodies = [first, *(federation.next_anchor(release) for release in releases)]
    assert len({body_digest(body) for body in bodies}) == 4
    for before, release in zip(bodies, releases, strict=False):
        assert torch.equal(federation.anchor(release), before)
        assert len(release.body_sites) == 6
    assert releases[-1].chain == tuple(map(body_digest, bodies))
    body = federation.body
    assert body is not None
    size = body.head.layout.size
    snapshot = federation.zoo.snapshot()
    records = snapshot.records(round=3)
    assert snapshot.weights(records).shape == (18, size)
    assert {record.parent for record in records} == {"00002"}


def test_the_release_says_which_sites_are_in_its_body(conducted):
    federation, _, _ = conducted
    found = affected_releases(federation.releases, "site-001")
    assert [one.release.id for one in found] == ["00001", "00002", "00003"]


def test_a_site_keeps_a_whole_network_with_the_release_s_temperature(conducted):
    federation, _, _ = conducted
    site = open_site(federation.root / "sites" / "site-000" / "site.toml")
    model, start = load_model(site.state), load_start(site.state)
    assert model is not None
    assert start is not None
    assert model.layout == federation.network.layout
    assert (model.facts.release, model.facts.chosen, model.facts.steps) == ("00002", "prior", 3)
    ((shots, temperature),) = federation.releases.read("00002").temperatures
    assert shots == federation.config.probe.shots
    # The site has four times as many examples per class.
    assert start.temperature == pytest.approx(temperature**0.25)
    body = federation.body
    assert body is not None
    # Body and start are the release's; the head is the site's own.
    own = federation.releases.generator("00002").bodies.own
    torch.testing.assert_close(body.split(start.model.weights)[0][:-1], own[:-1])


def test_the_record_of_what_left_lists_heads_and_body(conducted):
    federation, _, _ = conducted
    site = open_site(federation.root / "sites" / "site-000" / "site.toml")
    last = site.sent.entries()[-1]
    assert last["kind"] == "update"
    body, size = federation.body, federation.target.layout.size
    assert last["tensors"]["arrays"] == {
        "weights": [3, size],
        "probes": [3, size],
        "body": [body.layout.size],
    }
    assert len(last["changes"]) == 4
    assert all(change > 0 for change in last["changes"])
    assert last["work"]["steps"] == 4 + 3


def test_all_arms_are_measured_with_their_confidence(conducted):
    federation, divided, _ = conducted
    sites = held_out_sites(divided)["seen"]
    found = measurements_of(federation.root, "00003", sites)
    for one in found.values():
        assert tuple(one.curves) == tuple(one.confidence) == keys("head")
    served = [one.curves[GENERATED][0] for one in found.values()]
    assert sum(served) / len(served) > 0.5


def test_updates_of_the_body_are_kept_until_a_release_has_them(conducted):
    federation, _, _ = conducted
    kept = sorted(path.name for path in (federation.root / "bodies").iterdir())
    assert kept == ["00002"]
    assert len(BodyUpdates.of(federation.root).read("00002")) == 6


def test_a_rollback_goes_back_to_the_body_too(tmp_path):
    federation, _ = small_federation(tmp_path / "out", settings=ON_A_BODY)
    run_inline(federation, 2)
    first, second = (federation.releases.read(id) for id in ("00001", "00002"))
    federation.releases.rollback()
    promoted = federation.releases.promoted()
    assert promoted is not None
    assert promoted.id == "00001"
    assert torch.equal(federation.anchor(promoted), federation.anchor(first))
    # Sites go along with the fork: their newest body is one link away.
    (state,) = run_inline(federation, 1)
    assert (state.step, state.parent, len(state.accepted)) == ("done", "00001", 6)
    third = federation.releases.read("00003")
    assert third.chain[:2] == second.chain[:2]
    assert third.chain[2] != second.chain[2]


def test_a_site_that_is_erased_is_in_no_later_body(tmp_path):
    federation, _ = small_federation(tmp_path / "out", settings=ON_A_BODY)
    run_inline(federation, 1)
    updates = BodyUpdates.of(federation.root)
    assert updates.holds("site-002")
    erased = erase_site(
        "site-002", zoo=federation.zoo, releases=federation.releases, federations=[federation]
    )
    assert [one.release.id for one in erased.affected] == ["00001"]
    assert not updates.holds("site-002")


def test_a_site_may_keep_its_heads_or_its_body_to_itself(tmp_path):
    federation, _ = small_federation(tmp_path / "out", settings=ON_A_BODY)
    for number, answers in ((0, "probe update"), (1, "probe body")):
        file = federation.root / "sites" / f"site-00{number}" / "site.toml"
        text = file.read_text().replace("[policy]\n", f'[policy]\nanswers = "{answers}"\n')
        file.write_text(text)
    (state,) = run_inline(federation, 1)
    assert len(state.accepted) == 6
    release = federation.releases.read("00001")
    assert "site-000" in release.sites
    assert "site-000" not in release.body_sites
    assert "site-001" not in release.sites
    assert "site-001" in release.body_sites


def test_too_few_examples_for_a_head_are_a_reason(tmp_path):
    federation, _ = small_federation(tmp_path / "out", settings=ON_A_BODY)
    file = federation.root / "sites" / "site-000" / "site.toml"
    file.write_text(
        file.read_text().replace("minimum_head_examples = 1", "minimum_head_examples = 1000")
    )
    run_inline(federation, 1)
    told = [e["reason"] for e in events(federation.root, "site.failed")]
    assert any("too-few-examples-a-head" in reason for reason in told)


def test_a_damaged_body_of_a_release_is_not_promoted(conducted, tmp_path):
    federation, _, _ = conducted
    generator = federation.releases.generator("00003")
    assert generator.bodies is not None
    assert bool(generator.bodies.next.isfinite().all())
    with pytest.raises(ReleaseError):
        federation.releases.part("00003", "no_such_tensor")


def test_release_files_are_plain_json(conducted):
    federation, _, _ = conducted
    text = (federation.root / "releases" / "00003" / "release.json").read_text()
    stored = json.loads(text)
    assert len(stored["chain"]) == 4
    assert stored["body_sites"] == [f"site-00{n}" for n in range(6)]


def test_a_head_is_explained_by_the_sites_that_it_was_learnt_from(conducted):
    federation, _, _ = conducted
    found = explain_site(federation, federation.releases.read("00003"), "site-002")
    assert found.learned_in == ("00003",)
    assert found.fine_tuning is None
    shares = {one.site: one.share for one in found.origin.shares}
    assert shares.pop("site-002") == pytest.approx(0)
    assert min(shares.values()) > 0


def test_the_last_networks_of_training_sites_are_measured_like_those_before(conducted):
    federation, divided, states = conducted
    rows = training_accuracy(federation, divided, states)
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert [row["release"] for row in rows] == ["00001", "00002", "00003"]
    assert rows[1]["accuracy"] == pytest.approx(states[2].accuracy_after, abs=1e-3)
    assert rows[2]["accuracy"] > rows[0]["accuracy"] - 0.05
