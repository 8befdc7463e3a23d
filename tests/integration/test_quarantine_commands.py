"""f2l-admin quarantine on a federation's folder; an error as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from f2l_fed.admission import Finding, Verdict
from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo import Commit, NewRecord, Zoo
from server.commands import quarantine, zoo
from server.federation.folder import Federation
from server.membership.site_registry import SiteRegistry
from server.rounds.run_cache import RunCache
from tests.support.small_federation import small_federation
from tests.support.waiting import PATIENCE_S

BIN = Path(sys.executable).parent
SHORT = Finding(code="short", action="quarantine", figures={"norm": 0.01, "median": 1.2})
ALIKE = Finding(code="alike", action="quarantine", figures={"cosine": 0.999, "max_allowed": 0.99})


def command(*words: object) -> Result:
    return CliRunner().invoke(quarantine.app, [str(word) for word in words])


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    federation, _ = small_federation(tmp_path / "out", sites=4, held_out=1)
    return federation


def put(federation: Federation, site: str, number: int = 1) -> str:
    size = federation.target.layout.size
    draws = np.random.default_rng(len(site))
    record = NewRecord(
        key=f"{number}/{site}/0",
        site=site,
        round=number,
        weights=draws.standard_normal(size, dtype=np.float32),
        context=draws.standard_normal(size, dtype=np.float32),
        metrics={"accuracy_after": 0.75},
    )
    return federation.quarantine.put(
        [record], Verdict.of([SHORT, ALIKE]), lineage=federation.config.lineage, time_s=1e9
    ).id


def test_quarantined_submissions_can_be_listed_shown_released_and_dropped(federation):
    root, first, second = federation.root, put(federation, "a"), put(federation, "bb")
    listed = json.loads(command("list", root, "--json").stdout)
    assert {entry["id"] for entry in listed} == {first, second}
    assert listed[0]["verdict"]["findings"][0]["figures"] == {"norm": 0.01, "median": 1.2}
    shown = command("show", root, first[:8])
    assert "an update shorter than the others'" in shown.stdout
    assert "an update in the same direction as another site's: cosine 0.999" in shown.stdout
    assert "accuracy_after 0.75" in shown.stdout
    released = command("release", root, first)
    assert released.exit_code == 0
    assert [r.key for r in federation.zoo.snapshot().records()] == ["1/a/0"]
    kept = command("drop", root, second)
    assert isinstance(kept.exception, UsageError)
    assert "--yes" in str(kept.exception)
    assert command("drop", root, second, "--yes").exit_code == 0
    assert command("list", root, "--json").stdout.strip() == "[]"


def test_a_damaged_entry_can_be_dropped(federation):
    id = put(federation, "a")
    entry = federation.quarantine.root / f"held/{id}.json"
    entry.write_bytes(entry.read_bytes()[:-9])
    failed = command("list", federation.root)
    assert isinstance(failed.exception, ZooError)
    assert f"quarantine drop FOLDER {id} --yes" in str(failed.exception)
    kept = command("drop", federation.root, id)
    assert isinstance(kept.exception, UsageError)
    assert "can't be read" in str(kept.exception)
    assert command("drop", federation.root, id, "--yes").exit_code == 0
    assert command("list", federation.root, "--json").stdout.strip() == "[]"


def forget(federation: Federation, site: str, *words: str) -> Result:
    return CliRunner().invoke(zoo.app, ["forget", str(federation.root), site, "--yes", *words])


def test_a_site_that_is_only_in_quarantine_can_be_forgotten(federation):
    put(federation, "a")
    done = forget(federation, "a", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == {"site": "a", "commit": None, "releases": []}
    assert federation.quarantine.list() == ()
    assert list((federation.quarantine.root / "shards").iterdir()) == []
    assert isinstance(forget(federation, "a").exception, ZooError)


@pytest.mark.parametrize("late", [False, True])
def test_a_release_during_an_erasure_is_not_in_the_zoo_after_it(federation, monkeypatch, late):
    federation.quarantine.release(put(federation, "a"), federation.zoo)
    id = put(federation, "a", 2)
    forgets = Zoo.forget

    def beside(its: Zoo, site: str) -> Commit:
        done = forgets(its, site) if late else None
        with suppress(ZooError):
            federation.quarantine.release(id, federation.zoo)
        return done or forgets(its, site)

    monkeypatch.setattr(Zoo, "forget", beside)
    assert forget(federation, "a").exit_code == 0
    assert federation.zoo.snapshot().records(status=None) == ()
    assert federation.quarantine.list() == ()


def test_a_site_that_has_only_registered_can_be_forgotten_with_its_cached_files(federation):
    SiteRegistry(federation.root / "registry").invite("north", hours=1, now=datetime.now(UTC))
    cache = RunCache.beside(federation.root)
    cache.keep_context("anchor", "north", torch.zeros(1, 3))
    done = forget(federation, "north")
    assert done.stdout == "north is erased, the zoo had nothing of it\n"
    assert not cache.has_context("anchor", "north")


def test_a_site_is_erased_beside_the_zoo_though_a_file_of_the_zoo_is_missing(federation):
    size = federation.target.layout.size
    row = np.ones(size, np.float32)
    federation.zoo.append(
        [
            NewRecord(key=f"1/{site}/0", site=site, round=1, weights=row * place, context=row)
            for place, site in enumerate(("a", "b"), 1)
        ]
    )
    cache = RunCache.beside(federation.root)
    cache.keep_context("anchor", "a", torch.zeros(1, 3))
    store = federation.zoo.snapshot().store
    store.delete(*store.names("shards"))
    told = forget(federation, "a")
    assert isinstance(told.exception, ZooError)
    assert "the file is missing" in str(told.exception)
    assert not cache.has_context("anchor", "a")


def test_an_unknown_site_is_an_error_and_leftovers_are_removed_all_the_same(federation):
    put(federation, "a")
    stray = federation.quarantine.root / "shards/stray.safetensors"
    stray.write_bytes(b"left by a writer that died")
    told = forget(federation, "nobody")
    assert isinstance(told.exception, ZooError)
    assert "unknown site" in str(told.exception)
    assert not stray.exists()
    assert len(federation.quarantine.list(site="a")) == 1


def test_a_wrong_id_is_one_sentence_and_no_traceback(federation):
    put(federation, "a")
    words = [BIN / "f2l-admin", "quarantine", "show", federation.root, "0000"]
    wrong = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert wrong.returncode == 1
    assert "no such entry in the quarantine" in wrong.stderr
    assert "Traceback" not in wrong.stderr
