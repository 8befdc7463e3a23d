"""Folders that commit 80a4fc7 wrote: opened, finished, promoted, verified, a site forgotten."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.daemon.status import read_status
from clients.onboarding.keys import Keys
from clients.onboarding.kit import read_kit
from clients.onboarding.preflight import check
from clients.site.model_store import load_model, load_start
from clients.site.site import open_site
from clients.training.accepted_request import AcceptedRequest
from clients.training.private_training import PRIVATE_PROBE, private_probes
from clients.training.probe_cache import probes_of
from f2l_fed.admission.history_file import load_history
from f2l_fed.events import RELEASE_REJECTED
from f2l_fed.wire.enrolment import EnrolmentForm
from f2l_fed.wire.packing import unpack_probe_reply, unpack_task, unpack_update
from server.dashboard.state import read_view
from server.federation import settings
from server.federation.folder import Federation
from server.generator.candidates import candidates_for
from server.generator.gate import objections
from server.membership.membership import Membership
from server.membership.site_registry import SiteRegistry
from server.pki.certificate_store import create_authority, issue
from server.pki.revocation import revoke
from server.rounds.journal import Journal
from server.rounds.run_cache import RunCache, anchor_digest
from server.rounds.state_files import load_states
from server.scheduling.run_plan import RunPlan
from tests.support.commands import in_process
from tests.support.golden import SITES, answer, asked, copied, finish, message
from tests.support.link import Link, of

BOTH = ("federation", "federation-retrain")
TORCH = 1e-5
"""What another build of torch may change."""


def said(*words: str) -> str:
    done = in_process(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def opened(place: Path, name: str = "federation") -> Federation:
    return Federation.open(place / name)


def states(federation: Federation) -> dict[str, str]:
    return {id: federation.releases.read(id).state for id in federation.releases.ids()}


def sites_of_round(federation: Federation, number: int) -> set[str]:
    return {record.site for record in federation.zoo.snapshot().records(round=number)}


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=TORCH, rtol=TORCH)


def test_the_settings_are_read_and_stay_as_they_are(tmp_path):
    place = copied(tmp_path, "federation")
    before = (place / "federation/federation.toml").read_text()
    federation, server = settings.refresh(place / "federation")
    assert (federation.config.lineage, server.address) == ("mlp/7", "localhost:28443")
    assert opened(place).config == federation.config
    assert (place / "federation/federation.toml").read_text() == before


def test_zoo_releases_rounds_and_quarantine_are_read(tmp_path):
    federation = opened(copied(tmp_path, "federation"))
    assert federation.zoo.verify() == ()
    assert federation.zoo.stats().records == 36
    assert federation.zoo.snapshot().commit == 19
    assert states(federation) == {"00001": "retired", "00002": "promoted", "00003": "candidate"}
    (reason,) = federation.releases.read("00003").reasons
    assert reason == "explained is 0.949, below the limit of 0.999."
    assert federation.last_round() == 4
    *finished, last = load_states(federation.root / "rounds")
    assert [state.step for state in finished] == ["done"] * 3
    assert [state.promoted for state in finished] == [True, True, False]
    assert (last.step, last.parent) == ("exchange", "00002")
    assert finished[1].rejected.keys() | finished[1].quarantined.keys() == {"elm", "fir"}
    assert list(finished[1].quarantined) == ["fir"]
    journal = Journal.of(federation.root / "rounds", 4).read()
    assert [(line.site, line.code) for line in journal] == [
        ("alder", "silent"),
        ("birch", "quarantined"),
        ("cedar", "accepted"),
        ("dune", "refused"),
    ]
    entries = federation.quarantine.list()
    assert [(entry.site, entry.round, entry.verdict.code) for entry in entries] == [
        ("fir", 2, "long"),
        ("birch", 4, "head-change"),
    ]
    assert [len(federation.quarantine.records(entry)) for entry in entries] == [2, 2]


def test_admission_remembers_what_it_has_admitted(tmp_path):
    history = load_history(opened(copied(tmp_path, "federation")).screening)
    assert (len(history.signatures), len(history.directions)) == (26, 18)
    assert not history.excluded
    assert {kind: set(of.sites) for kind, of in history.statistics.items()} == {
        "first": set(SITES),
        "later": set(SITES),
    }


def test_contexts_registry_plan_and_events_are_read(tmp_path):
    federation = opened(copied(tmp_path, "federation"))
    anchored = anchor_digest(federation.next_anchor(federation.releases.promoted()))
    cache = RunCache.beside(federation.root)
    assert all(cache.has_context(anchored, site) for site in SITES)
    registry = SiteRegistry(federation.root / "registry")
    found = {site.name: site.state for site in registry.all()}
    assert found == dict.fromkeys((*SITES, "hazel"), "active") | {
        "gorse": "removed",
        "heath": "invited",
    }
    assert len(registry.find("birch").serial_numbers) == 2
    link = Link(federation.root, first=9)
    asyncio.run(of(federation.root, link).take_up())
    assert RunPlan.read(federation.root / "flower/wanted.json").due
    view = read_view(federation.root)
    assert RELEASE_REJECTED in {event["event"] for event in view.events}


@pytest.mark.parametrize("name", BOTH)
def test_an_interrupted_round_is_finished_and_others_follow(name, tmp_path):
    place = copied(tmp_path, name, "sites")
    (state,) = finish(place, name)
    federation = opened(place, name)
    assert (state.step, state.promoted) == ("done", True)
    if name == "federation":
        assert (
            set(state.accepted) == sites_of_round(federation, 4) == {"alder", "cedar", "elm", "fir"}
        )
        assert set(state.rejected) == {"dune"}
        assert "too-many-steps" in state.rejected["dune"]
        assert list(state.quarantined) == ["birch"]
        told = {site: kinds for site, kinds in asked(place).items() if kinds}
        assert told == {"alder": ["update"], "fir": ["update"]}
        assert states(federation) == {
            "00001": "retired",
            "00002": "retired",
            "00003": "candidate",
            "00004": "promoted",
        }
    else:
        assert not any(asked(place).values())
        assert states(federation) == {"00001": "retired", "00002": "retired", "00003": "promoted"}
        assert not list((federation.root / "releases").glob(".*"))
    assert federation.releases.promoted().sites == SITES
    assert not (federation.root / "spool").exists()
    (after,) = finish(place, name, rounds=1)
    assert (after.step, after.promoted, after.accepted) == ("done", True, SITES)
    assert said("f2l-admin", "zoo", "verify", str(place / name)).strip() == "nothing is wrong"


def test_a_refused_release_is_promoted_and_rolled_back(tmp_path):
    place = copied(tmp_path, "federation", "sites")
    releases = opened(place).releases
    assert objections(opened(place), releases.read("00003")) == ()
    releases.promote("00003")
    assert states(opened(place)) == {"00001": "retired", "00002": "retired", "00003": "promoted"}
    releases.rollback()
    assert states(opened(place)) == {"00001": "retired", "00002": "promoted", "00003": "retired"}
    assert releases.read("00003").reasons == ("rolled back",)


@pytest.mark.parametrize(("name", "learned"), [(BOTH[0], 3), (BOTH[1], 2)])
def test_a_site_is_forgotten_before_its_round_is_finished(name, learned, tmp_path):
    place = copied(tmp_path, name, "sites")
    words = ("zoo", "forget", str(place / name), "birch", "--yes", "--json")
    assert len(json.loads(said("f2l-admin", *words))["releases"]) == learned
    federation = opened(place, name)
    assert federation.zoo.verify() == ()
    assert "birch" not in {record.site for record in federation.zoo.snapshot().records()}
    assert "birch" not in {entry.site for entry in federation.quarantine.list()}
    assert len(load_history(federation.screening).signatures) == 21
    (state,) = finish(place, name)
    federation = opened(place, name)
    assert (state.step, state.promoted) == ("done", True)
    assert federation.releases.promoted().sites == ("alder", "cedar", "dune", "elm", "fir")


def test_a_quarantine_entry_is_released(tmp_path):
    place = copied(tmp_path, "federation")
    said("f2l-admin", "quarantine", "release", str(place / "federation"), "502bc3")
    (record,) = opened(place).zoo.snapshot().records(keys=["2/fir/0"])
    assert record.metrics["released"] == 1.0


def test_candidates_are_those_of_the_recorded_task(tmp_path):
    stored = opened(copied(tmp_path, "federation"))
    # That version sent every site the nearest network of another one.
    assert not stored.config.candidates.nearest
    config = replace(stored.config, candidates=replace(stored.config.candidates, nearest=True))
    federation = replace(stored, config=config)
    snapshot = federation.zoo.snapshot()
    records = snapshot.records(keys=["3/alder/0", "3/alder/1"])
    probes = torch.from_numpy(snapshot.contexts(records).copy())
    made = candidates_for(federation, "00002", ["alder"], probes[None])["alder"]
    sent = unpack_task(message("task")).candidates
    for ours, theirs in zip(made, sent, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(close(ours[kind], theirs[kind]) for kind in theirs)


def test_a_site_goes_on_with_its_folder(tmp_path):
    place = copied(tmp_path, "federation", "site")
    path, state = place / "site/site.toml", place / "site/state"
    target = opened(place).target
    site = open_site(path)
    model, start = load_model(state), load_start(state)
    assert (model.facts.round, model.facts.release, model.facts.chosen) == (3, "00002", "sample-0")
    assert (start.model.facts.steps, start.recipe.steps) == (0, 4)
    assert [entry["kind"] for entry in site.sent.entries()] == ["probe", "update"] * 3 + ["probe"]
    assert read_status(state).state == "stopped"
    kept = load_file(state / "probes.safetensors")["probes"]
    accepted = AcceptedRequest(site=site, request=unpack_task(message("task")), target=target)
    assert close(probes_of(accepted), kept)
    status = json.loads(said("f2l-site", "status", str(path), "--json"))
    assert (status["site"], status["problem"], status["latest"]["kind"]) == ("alder", "", "probe")
    assert json.loads(said("f2l-site", "sent", str(path), "--json"))["total"]["bytes"] == 26173
    update = unpack_update(answer(path, "task"), target.layout)
    told = unpack_update(message("update"), target.layout)
    assert close(update.weights, told.weights)
    assert close(update.probes, told.probes)
    assert (update.chosen, update.numbers.keys()) == (told.chosen, told.numbers.keys())
    reply = unpack_probe_reply(answer(path, "probe-request"), target.layout)
    assert close(reply.probes, unpack_probe_reply(message("probe-reply"), target.layout).probes)
    assert close(load_model(state).weights, model.weights)
    made = json.loads(said("f2l-site", "generate", str(path), "--offline", "--json"))
    assert made["loss"] == pytest.approx(0.21513, abs=1e-4)


def test_a_privacy_ledger_is_not_forgotten(tmp_path):
    place = copied(tmp_path, "federation", "site-private")
    path, state = place / "site-private/site.toml", place / "site-private/state"
    site = open_site(path)
    assert site.budget.spent()["spent"] == pytest.approx(3.35748, abs=1e-4)
    accepted = AcceptedRequest(
        site=site, request=unpack_task(message("task")), target=opened(place).target
    )
    kept = load_file(state / PRIVATE_PROBE)["probes"]
    assert torch.equal(private_probes(accepted, site.budget), kept.expand(2, -1))
    assert site.budget.spent()["spent"] == pytest.approx(3.35748, abs=1e-4)
    answer(path, "task")
    assert open_site(path).budget.spent()["spent"] == pytest.approx(4.18988, abs=1e-4)


def test_a_new_authority_serves_the_folders(tmp_path):
    place = copied(tmp_path, "federation", "site")
    root, certificates = place / "federation", place / "federation/certificates"
    create_authority(certificates)
    issue(certificates, "server", "server", hosts=("localhost",))
    issue(certificates, "admin", "admin")
    revoke(certificates, ())
    _, server = settings.refresh(root)
    membership = Membership(root, server)
    (place / "kit").write_bytes(membership.invite("alder", "admin", replace=True))
    kit, own = read_kit(place / "kit", now=datetime.now(UTC)), Keys.make()
    form = EnrolmentForm(
        site="alder", token=kit.token, key=own.public, request=own.request("alder")
    )
    certificate = membership.enrol(form)
    own.write(place / "site")
    (place / "site/ca.crt").write_text(kit.authority)
    (place / "site/tls.crt").write_text(certificate)
    assert check(place / "site/site.toml", connect=False).problems == ()
    assert membership.registry.find("alder").state == "active"
