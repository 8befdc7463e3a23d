"""The catalogue of refusals: nothing is refused without a sentence and a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from f2l_fed.errors import ConfigError, DataError, F2LError, LayoutMismatch, PolicyRefusal
from f2l_fed.wire.refusals import CATALOGUE, code_of, reason_of, told
from server.rounds.journal import SUCCESSES, Code

ROOT = Path(__file__).parents[4]
SITE = sorted((ROOT / "clients").rglob("*.py"))


def raised(pattern: str) -> set[str]:
    return {code for path in SITE for code in re.findall(pattern, path.read_text())}


def test_every_code_that_a_site_raises_is_in_the_catalogue():
    found = raised(r'(?:PolicyRefusal\(|yield )\s*"([^"]+)"') | raised(r'\bcode="([^"]+)"')
    assert len(found) > 30
    assert found <= CATALOGUE.keys()


def test_every_end_of_a_task_is_in_the_catalogue():
    assert set(get_args(Code)) - SUCCESSES - {"refused", "unable"} <= CATALOGUE.keys()


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_reason_is_a_clause_and_a_sentence_that_says_what_to_do(code):
    reason = CATALOGUE[code]
    assert re.fullmatch(r"[a-z0-9-]{1,64}", code)
    assert reason.text[0].islower()
    assert not reason.text.endswith(".")
    assert reason.remedy[0].isupper()
    assert reason.remedy.endswith(".")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyRefusal("too-many-steps"), "too-many-steps"),
        (PolicyRefusal("a secret"), "failed"),
        (DataError("a secret"), "data-unusable"),
        (DataError("a secret", code="too-few-classes"), "too-few-classes"),
        (ConfigError("a secret", code="a secret"), "configuration-invalid"),
        (LayoutMismatch("a secret"), "other-network"),
        (F2LError("a secret"), "failed"),
    ],
)
def test_nothing_but_a_known_code_leaves(error, code):
    assert code_of(error) == code


def test_texts_of_older_and_newer_sites_are_shown_cut_and_cleaned():
    assert told("LayoutMismatch").startswith("site and server build different networks")
    assert told("a" * 1000) == reason_of("a" * 1000).text
    assert len(told("a" * 1000)) == 64
    assert "\x1b" not in told("a\x1b[2J")
