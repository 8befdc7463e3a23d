"""The screening on what real sites send in real rounds: no honest site is held back, attackers are.

The full measurement, with its figures, is `tests.benchmarks.admission`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from f2l_fed.admission import (
    AdmissionConfig,
    History,
    Screen,
    Submission,
    extend_history,
    new_records,
    read_admitted,
    review_cohort,
)
from f2l_fed.local_training.probe import anchor
from f2l_fed.targets import Target
from server.federation.folder import Federation
from tests.support.attacks import ATTACKS
from tests.support.recorded import recorded_rounds
from tests.support.small import rng
from tests.support.small_federation import small_federation

SITES = 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Federation, list[list[Submission]]]:
    federation, _ = small_federation(tmp_path_factory.mktemp("recorded") / "out", sites=SITES)
    return federation, recorded_rounds(federation, 2)


@pytest.fixture(scope="module")
def recorded(finished) -> tuple[Target, Screen, list[list[Submission]]]:
    federation, rounds = finished
    screen = Screen.of(federation.target, federation.config.lineage, 2, AdmissionConfig())
    return federation.target, screen, rounds


def held_back(screen: Screen, rounds: Sequence[Sequence[Submission]]) -> set[tuple[int, str]]:
    """Round and site of whatever is not simply accepted, at once or at the second look."""
    history, found = History(), set()
    for number, round_ in enumerate(rounds, 1):
        for one in round_:
            judged = screen.judge(one, history)
            history = judged.history
            if judged.verdict.action != "accept":
                found.add((number, one.site))
        history, excluded = review_cohort(history, one.id.kind, screen.config)
        found |= {(number, site) for site in excluded}
    return found


def test_honest_sites_are_accepted_in_first_and_later_rounds(recorded):
    _, screen, rounds = recorded
    assert [len(round_) for round_ in rounds] == [SITES, SITES]
    assert held_back(screen, rounds) == set()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_quarter_of_attackers_is_held_back_and_nobody_else(recorded, attack):
    target, screen, rounds = recorded
    attackers = [1, 5, 10]
    attacked = [
        [
            ATTACKS[attack](one, round_, target, rng(place)) if place in attackers else one
            for place, one in enumerate(round_)
        ]
        for round_ in rounds
    ]
    expected = {(n, rounds[0][place].site) for n in (1, 2) for place in attackers}
    assert held_back(screen, attacked) == expected


def test_a_submission_and_its_records_are_the_same(finished):
    federation, rounds = finished
    snapshot = federation.zoo.snapshot()
    in_zoo = {record.key: record for record in snapshot.records()}
    made = [record for round_ in rounds for one in round_ for record in new_records(one)]
    assert {record.key for record in made} == set(in_zoo)
    for record in made:
        (weights,) = snapshot.weights([in_zoo[record.key]])
        (context,) = snapshot.contexts([in_zoo[record.key]])
        assert np.array_equal(record.weights, weights)
        assert np.array_equal(record.context, context)
        assert record.metrics == pytest.approx(dict(in_zoo[record.key].metrics))
        assert record.parent == in_zoo[record.key].parent


def test_a_memory_can_be_built_from_a_zoo_and_knows_copies_of_what_is_in_it(finished, recorded):
    federation, rounds = finished
    _, screen, _ = recorded
    first = anchor(federation.target, federation.config.lineage)
    history = extend_history(read_admitted(federation.zoo.snapshot(), 4), screen.sketch, first)
    assert {one.site for one in history.signature_ids} == {one.site for one in rounds[0]}
    for kind in ("first", "later"):
        assert history.statistics_on(kind).everyone().reference("norm", 0.1).sites == SITES
    partly = history.without("site-003")
    again = extend_history(
        read_admitted(federation.zoo.snapshot(), 4, partly), screen.sketch, first, partly
    )
    assert sorted(again.signature_ids) == sorted(history.signature_ids)
    stolen = dataclasses.replace(rounds[1][0], site="a thief")
    codes = {finding.code for finding in screen.judge(stolen, history).verdict.findings}
    assert "copy" in codes
