"""Ledgers of a privacy budget that would be a fresh one, although answers have left."""

from __future__ import annotations

import json

import pytest

from clients.onboarding.preflight import check
from clients.site.privacy_budget import LEDGER
from tests.attacks.peers.dishonest_centre import TARGET, ask_task
from tests.attacks.test_dishonest_centre import NETWORK, code
from tests.support.sites import digits_site

PRIVATE = "[privacy]\nepsilon = 5.0\ndelta = 1e-3\nanswers = 4\n"
SPENDING = {"noise_multiplier": 9.0, "sampling_rate": 1.0, "steps": 3}


@pytest.fixture
def site(tmp_path):
    path = digits_site(tmp_path, more=PRIVATE)
    assert NETWORK.shape == (TARGET.layout.size,)
    assert [code(ask_task(path, NETWORK)) for _ in range(2)] == ["", ""]
    return path


def refused(site) -> None:
    assert code(ask_task(site, NETWORK)) == "configuration-invalid"
    (problem,) = check(site, connect=False).problems
    assert "ledger" in problem
    assert "backup" in problem


def test_a_deleted_ledger_is_no_fresh_budget(site):
    (site.parent / "state" / LEDGER).unlink()
    refused(site)


@pytest.mark.parametrize(
    "ledger",
    [
        {"answers": 0, "spent": []},
        {"answers": 1, "spent": [SPENDING]},
        {"answers": 2, "spent": [{**SPENDING, "noise_multiplier": 1e9}]},
        {"answers": 2, "spent": [{**SPENDING, "sampling_rate": 1e-300}]},
        {"answers": -5, "spent": []},
        {"answers": True, "spent": []},
        {"answers": 2.5, "spent": []},
        {"answers": "2", "spent": []},
        {"answers": 2, "spent": [{**SPENDING, "steps": -3}]},
        {"answers": 2, "spent": [{**SPENDING, "steps": True}]},
        {"answers": 2, "spent": [{**SPENDING, "noise_multiplier": float("nan")}]},
        {"answers": 2, "spent": [{**SPENDING, "noise_multiplier": -1.0}]},
        {"answers": 2, "spent": ["all"]},
        {"answers": 2, "spent": {}},
        [],
    ],
)
def test_a_ledger_that_says_less_than_the_record_is_refused(site, ledger):
    (site.parent / "state" / LEDGER).write_text(json.dumps(ledger))
    refused(site)


def test_a_ledger_from_an_old_backup_is_refused_and_the_latest_goes_on(site):
    path = site.parent / "state" / LEDGER
    old = path.read_text()
    assert code(ask_task(site, NETWORK)) == ""
    latest = path.read_text()
    path.write_text(old)
    refused(site)
    path.write_text(latest)
    assert code(ask_task(site, NETWORK)) == ""


@pytest.mark.parametrize("answers", [-5, True, False])
def test_counts_that_are_none_are_refused_before_anything_has_left(tmp_path, answers):
    site = digits_site(tmp_path, more=PRIVATE)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / LEDGER).write_text(json.dumps({"answers": answers, "spent": []}))
    refused(site)
