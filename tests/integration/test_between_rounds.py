"""What happens between a look and what follows from it, and what is left where a process died."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from f2l_fed.core.locks import locked
from f2l_fed.errors import UsageError
from server.cluster.tasks import retrain_here
from server.erasure import erase_beside_zoo
from server.federation.folder import Federation
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry
from server.rounds import state as round_state
from server.rounds import state_files
from server.scheduling.run_plan import RunPlan
from tests.support.conducted import after_quick_round
from tests.support.inline import InlineBackend, conductor
from tests.support.link import Link, followed, holds, of
from tests.support.small_federation import ANY_RELEASE, prepared, small_federation
from tests.support.waiting import PATIENCE_S


def test_rounds_that_a_restored_folder_has_forgotten_are_not_counted_again(tmp_path):
    federation, files = after_quick_round(tmp_path / "out")
    for path in (federation.root / "rounds").glob("0*"):
        path.unlink()
    (state,) = conductor(Federation.open(federation.root), files).run(1, 6)
    assert (state.number, state.promoted, state.release) == (2, True, "00002")
    assert state.bytes_up > 0
    rows = federation.zoo.snapshot().rounds()
    assert {tuple(numbers) for numbers in rows.values()} == {(1, 2)}
    # Nor those of which only the records are left.
    shutil.rmtree(federation.root / "releases")
    for path in (federation.root / "rounds").glob("0*"):
        path.unlink()
    assert Federation.open(federation.root).last_round() == 2


def test_all_rounds_that_were_asked_for_follow_those_that_only_the_zoo_knows(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out")
    root = federation.root
    (root / "flower").mkdir()
    (root / "rounds" / "00001.json").unlink()
    (root / "releases" / "00001.bak").mkdir()
    (root / "releases" / "00001.bak" / "release.json").write_text("{}")

    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=2, sites=2)
        async with followed(those):
            for number in (2, 3):
                done = replace(round_state.begun(number, "", 2), step="done")
                state_files.save_state(root / "rounds", done)
                link.outcomes[number - 1] = "completed"
                await holds(
                    lambda n=number: len(link.started) == 2 and those.requested().run != n - 1
                )
        assert those.requested().run == 0

    asyncio.run(play())


class Deciding(InlineBackend):
    """An administrator decides while the gate is at work, which finds something."""

    def __init__(self, federation: Federation, back: bool) -> None:
        super().__init__(federation)
        self._back = back

    def objections(self, id: str) -> tuple[str, ...]:
        self._federation.releases.promote(id)
        if self._back:
            self._federation.releases.rollback()
        return ("something",)


@pytest.mark.parametrize("back", [False, True])
def test_what_an_administrator_decides_beside_the_gate_holds(tmp_path, back):
    federation, files = after_quick_round(tmp_path / "out")
    (state,) = conductor(federation, files, backend=Deciding(federation, back)).run(1, 6)
    registry = federation.releases
    stored = {id: registry._stored(id).state for id in registry.ids()}
    if back:
        assert stored == {"00001": "promoted", "00002": "retired"}
        assert (state.promoted, state.reason) == (False, "rolled back")
    else:
        assert stored == {"00001": "retired", "00002": "promoted"}
        assert state.promoted


@pytest.mark.parametrize("live", [False, True])
def test_a_round_is_either_aborted_or_promoted(tmp_path, monkeypatch, live):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE)
    (federation.root / "flower").mkdir()
    link, told = Link(federation.root), []
    if live:
        RunPlan(by="bert", until=3, run=1).save(federation.root / "flower" / "wanted.json")

    def abort() -> None:
        try:
            told.append(asyncio.run(of(federation.root, link).abort("anna")).reason)
        except UsageError as error:
            told.append(str(error))

    beside, reached = threading.Thread(target=abort), threading.Event()
    alone, promote = state_files.lock_states, ReleaseRegistry.promote

    def watched(folder: Path) -> AbstractContextManager[None]:
        if threading.current_thread() is not threading.main_thread():
            reached.set()
        return alone(folder)

    def meanwhile(its: ReleaseRegistry, id: str, *, judged: Release | None = None) -> Release:
        beside.start()
        assert reached.wait(PATIENCE_S)
        return promote(its, id, judged=judged)

    monkeypatch.setattr(state_files, "lock_states", watched)
    monkeypatch.setattr(ReleaseRegistry, "promote", meanwhile)
    (state,) = conductor(federation, files).run(1, 6)
    beside.join(PATIENCE_S)
    ended = "aborted by anna, when round 1 had just ended" if live else "the round has just ended."
    assert told == [ended]
    assert link.stopped == ([1] if live else [])
    assert (state.step, state.promoted) == ("done", True)
    assert state_files.load_state(federation.root / "rounds", 1) == state


def test_what_is_aborted_before_it_goes_on_stays_so(tmp_path, monkeypatch):
    """The run that goes on with a round has read it, and not yet begun."""
    federation, files = after_quick_round(tmp_path / "out")
    (federation.root / "flower").mkdir()
    folder = federation.root / "rounds"
    (state,) = state_files.load_states(folder)
    before = replace(state, number=2, parent="00001", step="retrain", release="")
    state_files.save_state(folder, before)
    last_round = Federation.last_round

    def meanwhile(its: Federation) -> int:
        asyncio.run(of(its.root, Link(its.root)).abort("anna"))
        return last_round(its)

    monkeypatch.setattr(Federation, "last_round", meanwhile)
    (aborted,) = conductor(federation, files).run(0, 6)
    assert (aborted.step, aborted.reason) == ("failed", "aborted by anna")
    assert state_files.load_state(folder, 2) == aborted
    assert federation.releases.ids() == ["00001"]


def left_behind(federation: Federation) -> Path:
    given = federation.root / "training" / "00001" / "given"
    given.parent.mkdir(parents=True)
    given.write_bytes(b"latents of all sites")
    return given


def test_a_retraining_that_was_killed_leaves_nothing_for_good(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out")
    given = left_behind(federation)
    commit = federation.zoo.snapshot().commit
    retrain_here(federation.root, "00002", commit, federation.config.ray)
    assert not given.exists()
    given = left_behind(federation)
    with locked(federation.root / "rounds" / "lock"):
        # The one that is at work needs it.
        erase_beside_zoo(federation, "site-000")
    assert given.exists()
    # As an erasure leaves it that was killed.
    shutil.copytree(federation.root / "training", federation.root / ".training.erased")
    erase_beside_zoo(federation, "site-000")
    assert not list(federation.root.rglob("given"))


def test_a_simulation_never_replaces_a_federation_with_a_server(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    small_federation(tmp_path / "out", force=True)
    (federation.root / "certificates").mkdir()
    with pytest.raises(UsageError, match="belongs to a deployed federation"):
        small_federation(tmp_path / "out", force=True)
    kept = set(tmp_path.rglob("*")) - {federation.root / "certificates"}
    assert {path.name for path in kept} >= {path.name for path in before} - {"lock"}
