"""Rounds of sites whose labels mean the same, and which share a network with its head."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from clients.site.model_store import load_model, load_start
from clients.site.sent_log import utc_now
from clients.site.site import open_site
from clients.training.fine_tuning import fine_tune_again
from clients.training.requested_network import request_network
from f2l_fed.evaluation.arm_names import GENERATED, keys
from f2l_fed.wire.serialization import from_bytes, to_bytes
from server.cluster.held_out import measurements_of
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.generator.gate import objections
from server.generator.network_service import NetworkService
from server.simulation.setup import held_out_sites
from server.simulation.training_sites import own_accuracies, training_accuracy
from tests.support.inline import run_inline
from tests.support.small_federation import small_federation

ROUNDS = 7
SETTINGS = ("target.adapt=head", "split.dirichlet_alpha=0.3", "shared.early_rounds=2")


@pytest.fixture(scope="module")
def conducted(tmp_path_factory):
    """A federation after seven rounds, and its data."""
    out = tmp_path_factory.mktemp("shared") / "out"
    federation, divided = small_federation(out, sites=8, settings=SETTINGS, scenario="dirichlet")
    states = run_inline(federation, ROUNDS)
    return federation, divided, states


def accuracies(federation, name):
    """The mean over sites of a number that they declare, by round."""
    snapshot = federation.zoo.snapshot()
    by_round = {}
    for number in range(1, ROUNDS + 1):
        told = {r.site: r.metrics[name] for r in snapshot.records(round=number)}
        by_round[number] = sum(told.values()) / len(told)
    return by_round


def test_every_site_is_accepted_and_every_release_promoted(conducted):
    _federation, divided, states = conducted
    assert [state.step for state in states] == ["done"] * ROUNDS
    assert all(state.promoted for state in states), [state.reason for state in states]
    assert {len(state.accepted) for state in states} == {len(divided.sites)}


def test_what_sites_get_grows_and_never_falls_back(conducted):
    federation, _, _ = conducted
    own = accuracies(federation, "accuracy_after")
    best = list(itertools.accumulate((own[n] for n in sorted(own)), max))
    # A round tells of the release before it; the first has none.
    for number, before in zip(range(3, ROUNDS + 1), best[1:], strict=False):
        assert own[number] > before - 0.02, own
    assert own[ROUNDS] > own[1] + 0.02
    assert own[ROUNDS] > 0.9


def test_the_shared_network_moves_every_round_and_starts_ahead(conducted):
    federation, _, _ = conducted
    start = last = federation.first_start
    for id in federation.releases.ids():
        release = federation.releases.read(id)
        generator = federation.releases.generator(id)
        bodies = generator.bodies
        assert bodies is not None
        assert float((bodies.own - start).norm()) > 0
        point = start + 1.5 * (bodies.own - start)
        torch.testing.assert_close(bodies.next, point + 0.5 * (point - last))
        assert torch.equal(federation.next_anchor(release), bodies.next)
        assert torch.equal(generator.mean, bodies.own)
        start, last = bodies.next, point


def test_a_site_keeps_its_own_network_with_its_label_mix(conducted):
    federation, _, _ = conducted
    site = open_site(federation.root / "sites" / "site-000" / "site.toml")
    model, start = load_model(site.state), load_start(site.state)
    assert model is not None
    assert start is not None
    assert model.facts.round == ROUNDS
    assert model.facts.release == f"{ROUNDS - 1:05d}"
    assert start.falling
    assert model.facts.steps == start.recipe.steps > 0
    module = federation.target.module(model.weights)
    found = (module(site.validation.x).argmax(1) == site.validation.y).float().mean()
    assert float(found) == pytest.approx(model.facts.accuracy)
    assert list(site.state.glob("returned-*.safetensors"))
    again, _ = fine_tune_again(site, start, utc_now())
    assert again.facts.steps == model.facts.steps
    assert again.facts.accuracy > 0.7


def test_what_leaves_has_no_label_mix(conducted):
    federation, _, _ = conducted
    snapshot = federation.zoo.snapshot()
    for record in snapshot.records(round=ROUNDS):
        site = open_site(federation.root / "sites" / record.site / "site.toml")
        counts = torch.bincount(site.train.y, minlength=10)
        weights = torch.from_numpy(snapshot.weights([record]))[0]
        left = federation.target.layout.unflatten(weights)[federation.target.output_bias]
        kept = load_model(site.state)
        assert kept is not None
        own = federation.target.layout.unflatten(kept.weights)[federation.target.output_bias]
        absent = counts == 0
        if bool(absent.any()):
            # The kept network says of absent labels that they are unlikely; what has left doesn't.
            gap = own[~absent].mean() - own[absent].mean()
            assert float(gap) > 1
            assert abs(float(left[~absent].mean() - left[absent].mean())) < float(gap) / 2


def test_a_known_site_gets_the_shared_network_without_its_own_record_in_the_map(conducted):
    federation, _, _ = conducted
    id = federation.releases.ids()[-1]
    factory = CandidateFactory.open(federation, id)
    probes = torch.zeros(1, 1, federation.target.layout.size)
    ((_, (candidates,)),) = factory.candidates(["site-000"], probes)
    expected = federation.releases.expected(id)[0, 0]
    assert torch.equal(candidates["prior"], expected)


class Source:
    """The service of a federation, asked in this process."""

    def __init__(self, federation, site):
        self.service, self.site = NetworkService(federation.root), site

    def context_request(self):
        release, request = self.service.context_request()
        return release, from_bytes(request)

    def task(self, release, context):
        return from_bytes(self.service.task(self.site, release, to_bytes(context)))


def test_a_newcomer_and_a_known_site_get_a_network_outside_of_rounds(conducted, tmp_path):
    federation, _, _ = conducted
    shutil.copytree(federation.root / "sites" / "site-001", tmp_path / "known")
    shutil.copytree(federation.root / "sites" / "site-001", tmp_path / "new")
    shutil.rmtree(tmp_path / "new" / "state")
    text = (tmp_path / "new" / "site.toml").read_text().replace("site-001", "newcomer")
    (tmp_path / "new" / "site.toml").write_text(text)
    found = {}
    for folder, name in (("known", "site-001"), ("new", "newcomer")):
        site = open_site(tmp_path / folder / "site.toml")
        model, _, made = request_network(site, Source(federation, name))
        assert model.facts.release == f"{ROUNDS:05d}"
        assert made.after[1] > 0.75
        found[folder] = model.weights
    assert not torch.equal(found["known"], found["new"])


def test_new_sites_are_measured_with_their_label_mix(conducted):
    federation, divided, _ = conducted
    sites = held_out_sites(divided)["seen"]
    id = federation.releases.ids()[-1]
    found = measurements_of(federation.root, id, sites)
    for one in found.values():
        assert tuple(one.curves) == keys("shared")
    mean = {
        arm: sum(one.curves[arm][0] for one in found.values()) / len(found)
        for arm in keys("shared")
    }
    assert mean["shared"] > mean["global_mean"]
    assert mean[GENERATED] > mean["random"] + 0.3


def test_training_sites_are_measured_after_every_round(conducted):
    federation, divided, states = conducted
    rows = training_accuracy(federation, divided, states)
    assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    assert [row["release"] for row in rows] == federation.releases.ids()
    own = accuracies(federation, "accuracy_after")
    for row in rows[:-1]:
        assert row["accuracy"] == pytest.approx(own[row["round"] + 1], abs=1e-4)
    assert rows[-1]["accuracy"] > 0.9
    assert rows[-1]["weighted"] > 0.9


def test_the_last_networks_are_those_that_sites_would_make(conducted, tmp_path):
    """Up to the chance of batches: a request outside of rounds has that of no round."""
    federation, divided, _ = conducted
    id = federation.releases.ids()[-1]
    measured = own_accuracies(federation, id, divided.sites[:2])
    for name, accuracy in measured.items():
        shutil.copytree(federation.root / "sites" / name, tmp_path / name)
        site = open_site(tmp_path / name / "site.toml")
        _, _, made = request_network(site, Source(federation, name))
        assert made.after[1] == pytest.approx(accuracy, abs=1e-6)


def test_sites_with_a_privacy_budget_take_part_without_their_label_mix(tmp_path):
    federation, _ = small_federation(
        tmp_path / "out", sites=5, settings=SETTINGS, scenario="dirichlet"
    )
    files = sorted((tmp_path / "out" / "sites").glob("*/site.toml"))
    budget = "\n[privacy]\nepsilon = 8.0\ndelta = 1e-4\nanswers = 3\n"
    files[0].write_text(files[0].read_text() + budget)
    states = run_inline(federation, 2)
    assert [len(state.accepted) for state in states] == [5, 5], states[-1].rejected
    site = open_site(files[0])
    snapshot = federation.zoo.snapshot()
    (record, *_) = snapshot.records(site="site-000", round=2)
    assert set(record.metrics) == {"examples", "update_norm"}
    left, kept = (
        torch.from_numpy(snapshot.weights([record]))[0],
        load_file(max(site.state.glob("returned-*.safetensors"))),
    )
    assert not torch.allclose(left, kept["probes"][0], atol=0.01)


def test_a_release_after_which_sites_lost_accuracy_is_objected_to(conducted, tmp_path):
    shutil.copytree(conducted[0].root, tmp_path / "out")
    federation = Federation.open(tmp_path / "out")
    id = federation.releases.ids()[-1]
    release = federation.releases.read(id)
    assert abs(release.figures["accuracy_gain"]) < 0.1
    worse = replace(release, figures={**release.figures, "accuracy_gain": -0.3})
    (reason,) = (one for one in objections(federation, worse) if "accuracy" in one)
    assert reason == "accuracy_gain is -0.3, below the limit of -0.1."
    assert not any("accuracy" in one for one in objections(federation, release))
