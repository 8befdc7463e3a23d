"""Byzantine sites in real rounds: quarantined or rejected, never in the zoo; no honest site is.

Only the first of a federation could slip through, while there are few to compare them with: then
the cohort review leaves them out (see test_rounds_inline).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from f2l_fed.admission import load_history
from f2l_fed.admission.history import Exclusion
from f2l_fed.config import load_config
from server.commands import quarantine, zoo
from server.federation.folder import Federation
from server.rounds import state_files
from server.rounds.journal import Journal
from server.rounds.screening import Screening
from server.rounds.state import RoundState
from server.simulation.setup import Simulation, prepare
from tests.support.attacks import copied, flipped, not_a_number, shrunk
from tests.support.inline import run_inline
from tests.support.liars import with_liars
from tests.support.small_federation import SETTINGS, small_federation
from tests.support.waiting import PATIENCE_S

SITES = 14
NAMES = [f"site-{n:03d}" for n in range(SITES)]
LIES = {
    "site-009": flipped,
    "site-008": copied,
    "site-012": not_a_number,
    "site-013": shrunk,
}
CODES = {
    "site-009": ("quarantined", "head-change"),
    "site-008": ("quarantined", "copy"),
    "site-012": ("admission", "not-finite"),
    "site-013": ("quarantined", "short"),
}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory) -> tuple[Federation, list[RoundState]]:
    federation, _ = small_federation(
        tmp_path_factory.mktemp("poisoned") / "out",
        sites=SITES,
        # Records of any round can be used together.
        settings=("probe.anchors=1",),
    )
    return federation, with_liars(federation, LIES).run(2, SITES)


@pytest.fixture
def own_copy(poisoned, tmp_path) -> Federation:
    shutil.copytree(poisoned[0].root, tmp_path / "out")
    return Federation.open(tmp_path / "out")


def events(root: Path, name: str) -> list[dict]:
    lines = map(json.loads, (root / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == name]


def held_in(federation: Federation, number: int) -> dict[str, str]:
    return {held.site: held.id for held in federation.quarantine.list() if held.round == number}


def test_byzantine_sites_are_kept_out_of_zoo_and_release_and_all_others_are_in(poisoned):
    federation, states = poisoned
    honest = tuple(name for name in NAMES if name not in LIES)
    assert [(state.step, state.accepted) for state in states] == [("done", honest)] * 2
    assert {record.site for record in federation.zoo.snapshot().records()} == set(honest)
    for id in federation.releases.ids():
        release = federation.releases.read(id)
        assert (release.sites, release.left_out) == (honest, {})


@pytest.mark.parametrize("number", [1, 2])
def test_every_byzantine_site_has_its_code_in_the_journal_in_the_events_and_in_the_quarantine(
    poisoned, number
):
    federation, states = poisoned
    root = federation.root
    journal = Journal.of(root / "rounds", number).read()
    told = {line.site: (line.code, line.finding) for line in journal if line.code != "accepted"}
    assert {site: code for site, (code, _) in told.items()} == {
        site: code for site, (code, _) in CODES.items()
    }
    aside = {site for site, (code, _) in CODES.items() if code == "quarantined"}
    held = {held.site: held for held in federation.quarantine.list() if held.round == number}
    assert held.keys() == aside
    for site in aside:
        assert held[site].verdict.code == told[site][1]
        assert CODES[site][1] in {finding.code for finding in held[site].verdict.findings}
    said = events(root, "site.quarantined")
    assert {e["site"]: e["finding"] for e in said if e["round"] == number} == {
        site: told[site][1] for site in aside
    }
    (rejected,) = (e for e in events(root, "site.rejected") if e["round"] == number)
    assert (rejected["site"], rejected["code"], rejected["finding"]) == (
        "site-012",
        "admission",
        "not-finite",
    )
    (over,) = (e for e in events(root, "round.finished") if e["round"] == number)
    assert (over["accepted"], over["quarantined"], over["rejected"]) == (SITES - 4, 3, 1)
    assert states[number - 1].quarantined.keys() == aside
    assert states[number - 1].rejected.keys() == {"site-012"}


def test_what_a_person_releases_counts_at_the_next_retraining(own_copy):
    federation = own_copy
    id = held_in(federation, 2)["site-013"]
    done = CliRunner().invoke(quarantine.app, ["release", str(federation.root), id])
    assert done.exit_code == 0
    (state,) = run_inline_without(federation, "site-013")
    assert "site-013" not in state.accepted
    release = federation.releases.read(state.release)
    assert "site-013" in release.sites
    assert not release.left_out
    assert "site-013" in {one.site for one in load_history(federation.screening).signature_ids}


def run_inline_without(federation: Federation, site: str) -> list[RoundState]:
    (federation.root / "sites" / site / "site.toml").unlink()
    return run_inline(federation, 1)


def test_nobody_in_quarantine_is_asked_again_when_a_round_goes_on(own_copy):
    federation = own_copy
    root = federation.root
    (_, last) = state_files.load_states(root / "rounds")
    kept = sorted(held_in(federation, 2))
    # As if the process had died when all had answered, before it could say what became of anyone.
    path = Journal.of(root / "rounds", 2).path
    path.unlink()
    state_files.save_state(
        root / "rounds",
        dataclasses.replace(last, step="exchange", release="", promoted=False),
    )
    before = {name: sent(root, name) for name in NAMES}
    (resumed,) = with_liars(federation, LIES).run(0, SITES)
    asked = [name for name in NAMES if sent(root, name) != before[name]]
    assert asked == ["site-012"]
    assert resumed.accepted == last.accepted
    assert resumed.rejected.keys() == last.rejected.keys()
    assert resumed.quarantined.keys() == last.quarantined.keys()
    assert sorted(held_in(federation, 2)) == kept


def test_a_site_fills_the_quarantine_up_to_its_quota_and_no_more(own_copy):
    before = own_copy.quarantine.list()
    full = dataclasses.replace(own_copy.config.admission, quota=2)
    federation = Federation(own_copy.root, dataclasses.replace(own_copy.config, admission=full))
    quarantine = federation.quarantine
    # One with room, next to two without.
    quarantine.drop(quarantine.list(site="site-013")[0].id)
    (state,) = with_liars(federation, LIES).run(1, SITES)
    told = {line.site: line for line in Journal.of(federation.root / "rounds", 3).read()}
    for site in ("site-008", "site-009"):
        assert (told[site].code, told[site].finding) == ("admission", "quota")
        assert "waiting 2, max allowed 2" in told[site].reason
        assert len(quarantine.list(site=site)) == 2
    assert told["site-013"].code == "quarantined"
    assert len(quarantine.list()) == len(before)
    assert (state.step, len(state.accepted)) == ("done", SITES - len(LIES))


def sent(root: Path, site: str) -> int:
    lines = (root / "sites" / site / "state/sent.jsonl").read_text().splitlines()
    return sum(json.loads(line)["kind"] == "update" for line in lines)


def test_an_erased_site_is_in_no_part_of_the_folder_that_admission_reads(own_copy):
    federation = own_copy
    held = federation.quarantine.list(site="site-013")
    federation.quarantine.release(held[0].id, federation.zoo)
    for site in ("site-000", "site-013"):
        done = CliRunner().invoke(zoo.app, ["forget", str(federation.root / "zoo"), site, "--yes"])
        assert done.exit_code == 0, done.output
        assert federation.quarantine.list(site=site) == ()
        memory = load_history(federation.screening)
        assert site not in {one.site for one in (*memory.signature_ids, *memory.direction_ids)}
        assert all(site not in some.sites for some in memory.statistics.values())


def test_an_erasure_beside_the_end_of_an_exchange_loses_no_exclusion_and_keeps_no_site(own_copy):
    federation = own_copy
    screening = Screening.open(federation, federation.root / "spool" / "screened")
    exclusions = {"site-001": Exclusion(2, "why")}
    screening.history.exclude("later", exclusions)
    entered, erased = threading.Event(), threading.Event()

    def erase_beside() -> None:
        entered.wait(PATIENCE_S)
        CliRunner().invoke(zoo.app, ["forget", str(federation.root / "zoo"), "site-000", "--yes"])
        erased.set()

    beside = threading.Thread(target=erase_beside)
    beside.start()
    follows = screening.follow_zoo

    def followed() -> None:
        follows()
        entered.set()
        # Long enough for an erasure that does not wait.
        erased.wait(3)

    screening.follow_zoo = followed  # type: ignore[method-assign]
    screening.review()
    beside.join(PATIENCE_S)
    memory = load_history(federation.screening)
    assert dict(memory.excluded) == exclusions
    assert "site-000" not in {one.site for one in memory.signature_ids}
    assert "site-001" in {one.site for one in memory.signature_ids}


def test_sites_with_almost_the_same_data_are_not_taken_for_copies_of_each_other(tmp_path):
    config = load_config(
        None,
        [
            *SETTINGS,
            "split.dirichlet_alpha=1000",
            # Hardly any chance in the updates: few steps, each on all examples.
            *("first.steps=5", "first.batch=0", "later.steps=3", "later.batch=0"),
        ],
    )
    simulation = Simulation(
        data=("digits",),
        scenario="dirichlet",
        sites=16,
        held_out=2,
        rounds=1,
        out=tmp_path / "out",
        config=config,
    )
    federation, _ = prepare(simulation, force=False)
    states = run_inline(federation, 2)
    assert [(len(state.accepted), state.rejected) for state in states] == [(16, {})] * 2
    assert all(not federation.releases.read(id).left_out for id in federation.releases.ids())
