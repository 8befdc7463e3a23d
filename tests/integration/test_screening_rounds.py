"""The screening on what real sites send in real rounds: nobody honest is held back, liars are.

The full measurement, with its figures, is `tests.benchmarks.admission`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from f2l_fed.admission import AdmissionConfig, Memory, Screen, Submission, review
from f2l_fed.targets import Target
from tests.support.attacks import ATTACKS
from tests.support.recorded import recorded_rounds
from tests.support.small import rng
from tests.support.small_federation import small_federation

SITES = 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Target, Screen, list[list[Submission]]]:
    federation, _ = small_federation(tmp_path_factory.mktemp("recorded") / "out", sites=SITES)
    rounds = recorded_rounds(federation, 2)
    screen = Screen.of(federation.target, federation.config.lineage, 2, AdmissionConfig())
    return federation.target, screen, rounds


def held_back(screen: Screen, rounds: Sequence[Sequence[Submission]]) -> set[tuple[int, str]]:
    """Round and site of whatever is not simply accepted, at once or at the second look."""
    memory, found = Memory(), set()
    for number, round_ in enumerate(rounds, 1):
        for one in round_:
            judged = screen.judge(one, memory)
            memory = judged.memory
            if judged.verdict.action != "accept":
                found.add((number, one.site))
        memory, doubted = review(memory, one.origin.kind, screen.config)
        found |= {(number, site) for site in doubted}
    return found


def test_honest_sites_are_accepted_in_first_and_later_rounds(recorded):
    _, screen, rounds = recorded
    assert [len(round_) for round_ in rounds] == [SITES, SITES]
    assert held_back(screen, rounds) == set()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_quarter_of_liars_is_held_back_and_nobody_else(recorded, attack):
    target, screen, rounds = recorded
    liars = [1, 5, 10]
    attacked = [
        [
            ATTACKS[attack](one, round_, target, rng(place)) if place in liars else one
            for place, one in enumerate(round_)
        ]
        for round_ in rounds
    ]
    expected = {(n, rounds[0][place].site) for n in (1, 2) for place in liars}
    assert held_back(screen, attacked) == expected
