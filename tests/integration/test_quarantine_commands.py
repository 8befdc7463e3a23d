"""f2l-admin quarantine on a federation's folder; what goes wrong as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from f2l_fed.admission import Finding, Verdict
from f2l_fed.errors import UsageError
from f2l_fed.zoo import NewRecord
from server.commands import quarantine
from server.federation import Federation
from tests.support.small_federation import small_federation

BIN = Path(sys.executable).parent
SHORT = Finding(code="short", action="quarantine", figures={"norm": 0.01, "usual": 1.2})
ALIKE = Finding(code="alike", action="quarantine", figures={"cosine": 0.999, "most": 0.99})


def command(*words: object) -> Result:
    return CliRunner().invoke(quarantine.app, [str(word) for word in words])


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    federation, _ = small_federation(tmp_path / "out", sites=4, held_out=1)
    return federation


def put(federation: Federation, site: str) -> str:
    size = federation.target.layout.size
    draws = np.random.default_rng(len(site))
    record = NewRecord(
        key=f"1/{site}/0",
        site=site,
        round=1,
        weights=draws.standard_normal(size, dtype=np.float32),
        context=draws.standard_normal(size, dtype=np.float32),
        metrics={"accuracy_after": 0.75},
    )
    return federation.quarantine.put(
        [record], Verdict.of([SHORT, ALIKE]), lineage=federation.config.lineage, time_s=1e9
    ).id


def test_what_is_held_can_be_listed_shown_released_and_dropped(federation):
    root, first, second = federation.root, put(federation, "a"), put(federation, "bb")
    listed = json.loads(command("list", root, "--json").stdout)
    assert {held["id"] for held in listed} == {first, second}
    assert listed[0]["verdict"]["findings"][0]["figures"] == {"norm": 0.01, "usual": 1.2}
    shown = command("show", root, first[:8])
    assert "an update shorter than the others'" in shown.stdout
    assert "an update like another site's: cosine 0.999" in shown.stdout
    assert "accuracy_after 0.75" in shown.stdout
    released = command("release", root, first)
    assert released.exit_code == 0
    assert [r.key for r in federation.zoo.snapshot().records()] == ["1/a/0"]
    kept = command("drop", root, second)
    assert isinstance(kept.exception, UsageError)
    assert "--yes" in str(kept.exception)
    assert command("drop", root, second, "--yes").exit_code == 0
    assert command("list", root, "--json").stdout.strip() == "[]"


def test_a_wrong_id_is_one_sentence_and_no_traceback(federation):
    put(federation, "a")
    words = [BIN / "f2l-admin", "quarantine", "show", federation.root, "0000"]
    wrong = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 1
    assert "no such submission in quarantine" in wrong.stderr
    assert "Traceback" not in wrong.stderr
