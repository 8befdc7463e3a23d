"""Limits on lengths: their references, and the influence of a minority on them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from f2l_fed.admission import AdmissionConfig, History, review_cohort
from f2l_fed.admission.checks.duplicates import collusion_limit
from f2l_fed.admission.history_file import from_bytes, to_bytes
from tests.support.small import rng
from tests.support.submissions import EPISODES, SITES, TARGET, codes, submission


def round_of(screen, history, sent):
    """Judges submissions in their order; the history, and the codes against each site."""
    found = {}
    for one in sent:
        judged = screen.judge(one, history)
        history = judged.history
        found[one.site] = {finding.code for finding in judged.verdict.findings}
    return history, found


def later(number, round_, factor=1.0):
    """Not what the site sent in another round: that would be a copy of it."""
    one = submission(number + 100 * round_, round_, parent=f"{round_ - 1:05d}")
    return replace(one.scaled(torch.full((EPISODES,), factor)), site=f"site-{number:02d}")


def test_a_third_that_came_first_do_not_hide_behind_their_own_lengths(screen):
    history, byzantine = History(), 4
    for number in range(SITES):
        factor = (
            10.0 if number < byzantine else 0.3 + 0.7 * (number - byzantine) / (SITES - byzantine)
        )
        sent = submission(number).scaled(torch.full((EPISODES,), factor))
        history = screen.judge(sent, history).history
    _, found = review_cohort(history, "first", screen.config)
    assert list(found) == [f"site-{number:02d}" for number in range(byzantine)]
    assert {verdict.code for verdict in found.values()} == {"long"}


def test_lengths_are_compared_among_those_that_started_from_the_same_release(screen, newcomer):
    history = History()
    for number in range(SITES):
        history = screen.judge(submission(number, 2, parent="00001"), history).history
    long = newcomer.scaled(torch.full((EPISODES,), 3.0))
    same, worse = (replace(long, round=3, parent=parent) for parent in ("00001", "00002"))
    assert "long" in codes(screen, history, same)
    # After a release that is worse, everybody has farther to go.
    assert not {"long", "short", "layer", "probe-length"} & codes(screen, history, worse)


def test_a_single_long_update_is_shortened_and_a_huge_one_kept_out(screen, history, newcomer):
    def told(factor):
        factors = torch.ones(EPISODES)
        factors[0] = factor
        return screen.judge(newcomer.scaled(factors), history).verdict

    reference = (
        history.statistics_on("first").everyone().length_reference("norm", screen.config.floor)
    )
    longest = (reference.median + screen.config.clip * reference.spread) / newcomer.updates[
        0
    ].norm()
    assert told(0.98 * longest).action == "accept"
    assert told(1.02 * longest).action == "clip"
    assert told(10 * longest).action == "quarantine"


def test_nobody_escapes_a_comparison_of_lengths_by_being_late(screen):
    history = History()
    for number in range(SITES):
        history = screen.judge(submission(number, 3, parent="00002"), history).history
    late = submission(SITES, 2, parent="00001")
    assert screen.judge(late, history).verdict.admitted
    long = late.scaled(torch.full((EPISODES,), 10.0))
    assert "long" in codes(screen, history, long)
    # AdmittedRecords while the new round had too few, it is found at its end.
    few = History()
    for number in range(3):
        few = screen.judge(submission(number, 3, parent="00002"), few).history
    few = screen.judge(long, few, SITES).history
    assert long.id in few.signature_ids
    for number in range(3, SITES):
        few = screen.judge(submission(number, 3, parent="00002"), few).history
    assert list(review_cohort(few, "later", screen.config)[1]) == [long.site]


@pytest.mark.parametrize(("factor", "code"), [(0.3, "short"), (3.3, "long")])
def test_the_first_of_a_round_do_not_decide_for_all(screen, factor, code):
    honest, byzantine = range(8, 20), range(8)
    history, found = round_of(screen, History(), [later(n, 2) for n in (*honest, *byzantine)])
    history, _ = review_cohort(history, "later", screen.config)
    assert not any(found.values())
    sent = [*(later(n, 3, factor) for n in byzantine), *(later(n, 3) for n in honest)]
    history, found = round_of(screen, history, sent)
    assert not any(found[f"site-{n:02d}"] for n in honest)
    _, excluded = review_cohort(history, "later", screen.config)
    names = {f"site-{n:02d}" for n in byzantine}
    assert excluded.keys() <= names
    caught = {name for name in names if code in found[name]}
    caught |= {name for name, verdict in excluded.items() if verdict.code == code}
    # One of them would have been shorter than reference.
    assert len(caught) >= len(names) - 1


def test_whoever_missed_a_round_is_not_compared_with_the_lengths_of_a_better_release(screen):
    history, _ = round_of(screen, History(), [later(n, 2) for n in range(SITES)])
    history, _ = review_cohort(history, "later", screen.config)
    history, found = round_of(screen, history, [later(n, 3, 0.4) for n in range(SITES - 2)])
    assert not any(found.values())
    assert review_cohort(history, "later", screen.config)[1] == {}


def test_where_few_start_from_a_release_updates_are_compared_with_those_of_all(screen):
    history = History()
    for round_ in (2, 3):
        sent = [later(n, round_) for n in range(6 * (round_ - 2), 6 * (round_ - 1))]
        history, found = round_of(screen, history, sent)
        assert not any(found.values())
    assert "long" in codes(screen, history, later(SITES, 4, 6.0))
    assert not codes(screen, history, later(SITES, 4))


def test_all_updates_may_not_be_as_long_as_a_single_one(screen, history, newcomer):
    reference = (
        history.statistics_on("first").everyone().length_reference("norm", screen.config.floor)
    )
    wanted = reference.median + 9 * reference.spread
    factors = wanted / newcomer.updates.norm(dim=1)
    assert "long" in codes(screen, history, newcomer.scaled(factors))
    factors[1] = 1.0
    assert "long" not in codes(screen, history, newcomer.scaled(factors))


def test_a_layer_that_changed_far_more_than_the_others_is_put_aside(screen, history, newcomer):
    part = screen.sketch.layers == 0
    longest = (
        history.statistics_on("first").everyone().length_reference("layer.0", screen.config.floor)
    )

    def stretched(deviations, which):
        weights = newcomer.weights.clone()
        for row in which:
            update = newcomer.updates[row][part]
            length = longest.median + deviations * longest.spread
            weights[row, part] = newcomer.starts[row][part] + update * length / update.norm()
        return codes(screen, history, replace(newcomer, weights=weights))

    assert "layer" in stretched(30, range(EPISODES))
    assert "layer" in stretched(80, [0])
    assert "layer" not in stretched(15, [0])


def test_the_first_of_a_round_do_not_decide_for_the_rest(screen):
    """Five of the first nine sites have updates a quarter as long as what is reference."""
    short = {0, 1, 2, 6, 8}

    def sent(number):
        one = submission(number)
        return one.scaled(torch.full((EPISODES,), 0.25)) if number in short else one

    def admitted(sites):
        history = History()
        for number in range(24):
            history = screen.judge(sent(number), history, sites).history
        history, found = review_cohort(history, "first", screen.config)
        return {one.site for one in history.signature_ids} - set(found)

    honest = {submission(number).site for number in range(24) if number not in short}
    assert honest <= admitted(24)
    # As it would be if eight were enough.
    assert not honest <= admitted(0)


@pytest.mark.parametrize("sites", [3, 6])
@pytest.mark.parametrize("place", ["first", "last"])
def test_what_is_many_times_longer_is_found_among_a_few_sites_too(screen, sites, place):
    """The bias of a unit that is never active is enough to spoil every later start."""
    attacker = submission(0)
    spoilt = attacker.weights.clone()
    spoilt[:, math.prod(TARGET.layout.shapes[0])] = -1e6
    attacks = {
        "long": replace(attacker, weights=spoilt),
        "probe-length": replace(attacker, probes=1e6 * attacker.probes),
    }
    for code, attack in attacks.items():
        honest = [submission(number) for number in range(1, sites)]
        history = History()
        for one in [attack, *honest] if place == "first" else [*honest, attack]:
            judged = screen.judge(one, history, sites)
            history = judged.history
            assert judged.verdict.admitted or one is attack
            if one is attack and place == "last" and sites > 3:
                assert judged.verdict.code == code
        found = review_cohort(history, "first", screen.config)[1]
        assert {site: verdict.code for site, verdict in found.items()} in ({}, {"site-00": code})
        assert judged.verdict.code == code or found


def test_a_few_honest_sites_may_differ_several_times_over(screen):
    history = History()
    for number, factor in enumerate([1.0, 4.0, 0.3, 2.0, 0.5]):
        one = submission(number).scaled(torch.full((EPISODES,), factor))
        judged = screen.judge(one, history, 5)
        assert judged.verdict.admitted, judged.verdict.reason
        history = judged.history
    assert review_cohort(history, "first", screen.config)[1] == {}


def test_a_site_that_falls_silent_is_not_excluded_because_others_go_on(screen):
    history = History()
    for number in range(SITES):
        one = submission(number, 2, parent="00001")
        history = screen.judge(one.scaled(torch.full((EPISODES,), 5.0)), history, SITES).history
    history, found = review_cohort(history, "later", screen.config)
    assert found == {}
    for number in range(1, SITES):
        history = screen.judge(submission(number, 3, parent="00002"), history, SITES).history
    history, found = review_cohort(history, "later", screen.config)
    assert found == {}
    assert "site-00" in history.statistics_on("later").sites
    # An answer to an earlier round says nothing new either.
    late = screen.judge(submission(0, 1, parent="00000"), history, 3 * SITES).history
    assert len(late.signature_ids) > len(history.signature_ids)
    assert review_cohort(late, "later", screen.config)[1] == {}
    # It is new once more when it comes again.
    again = submission(0, 4, parent="00003").scaled(torch.full((EPISODES,), 20.0))
    history = screen.judge(again, history, 3 * SITES).history
    assert list(review_cohort(history, "later", screen.config)[1]) == ["site-00"]


def test_an_attack_while_few_were_known_is_reviewed_once_more_are(screen):
    history = History()
    for number in range(5):
        one = submission(number, 2, parent="00001")
        attack = one.scaled(torch.full((EPISODES,), 9.0)) if number == 0 else one
        history = screen.judge(attack, history, 5).history
    history, found = review_cohort(history, "later", screen.config)
    assert found == {}
    history = from_bytes(to_bytes(history))
    for number in range(1, SITES):
        history = screen.judge(submission(number, 3, parent="00002"), history, SITES).history
    assert list(review_cohort(history, "later", screen.config)[1]) == ["site-00"]


def test_when_an_update_came_says_nothing_about_what_is_alike():
    common = torch.randn(1, 256, generator=rng(1))
    apart = torch.randn(300, 256, generator=rng(2))
    apart *= torch.where(torch.arange(300) < 150, 0.02, 0.6)[:, None]
    directions = torch.nn.functional.normalize(common + apart)
    limits = {
        collusion_limit(
            directions[order], [f"s{index}" for index in order], AdmissionConfig(alike=0.5)
        )
        for order in (torch.randperm(300, generator=rng(seed)).tolist() for seed in range(6))
    }
    assert len(limits) == 1
