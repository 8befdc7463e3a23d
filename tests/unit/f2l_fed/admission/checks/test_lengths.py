"""How long updates may be: compared with whom, and what a minority can make of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from f2l_fed.admission import AdmissionConfig, History, review_cohort
from f2l_fed.admission.checks.duplicates import least_angle
from f2l_fed.admission.history_file import from_bytes, to_bytes
from tests.support.small import rng
from tests.support.submissions import EPISODES, SITES, TARGET, codes, submission


def round_of(screen, memory, sent):
    """Judges submissions in their order; the memory, and the codes against each site."""
    found = {}
    for one in sent:
        judged = screen.judge(one, memory)
        memory = judged.memory
        found[one.site] = {finding.code for finding in judged.verdict.findings}
    return memory, found


def later(number, round_, factor=1.0):
    """Not what the site sent in another round: that would be a copy of it."""
    one = submission(number + 100 * round_, round_, parent=f"{round_ - 1:05d}")
    return replace(one.moved(torch.full((EPISODES,), factor)), site=f"site-{number:02d}")


def test_a_third_that_came_first_do_not_hide_behind_their_own_lengths(screen):
    memory, liars = History(), 4
    for number in range(SITES):
        factor = 10.0 if number < liars else 0.3 + 0.7 * (number - liars) / (SITES - liars)
        sent = submission(number).moved(torch.full((EPISODES,), factor))
        memory = screen.judge(sent, memory).memory
    _, found = review_cohort(memory, "first", screen.config)
    assert list(found) == [f"site-{number:02d}" for number in range(liars)]
    assert {verdict.code for verdict in found.values()} == {"long"}


def test_lengths_are_compared_among_those_that_started_from_the_same_release(screen, newcomer):
    memory = History()
    for number in range(SITES):
        memory = screen.judge(submission(number, 2, parent="00001"), memory).memory
    long = newcomer.moved(torch.full((EPISODES,), 3.0))
    same, worse = (replace(long, round=3, parent=parent) for parent in ("00001", "00002"))
    assert "long" in codes(screen, memory, same)
    # After a release that is worse, everybody has farther to go.
    assert not {"long", "short", "layer", "probe-length"} & codes(screen, memory, worse)


def test_a_single_long_update_is_shortened_and_a_huge_one_kept_out(screen, memory, newcomer):
    def told(factor):
        factors = torch.ones(EPISODES)
        factors[0] = factor
        return screen.judge(newcomer.moved(factors), memory).verdict

    usual = memory.votes_on("first").usual_length("norm", screen.config.floor)
    longest = (usual.centre + screen.config.clip * usual.spread) / newcomer.updates[0].norm()
    assert told(0.98 * longest).action == "accept"
    assert told(1.02 * longest).action == "clip"
    assert told(10 * longest).action == "quarantine"


def test_nobody_escapes_a_comparison_of_lengths_by_being_late(screen):
    memory = History()
    for number in range(SITES):
        memory = screen.judge(submission(number, 3, parent="00002"), memory).memory
    late = submission(SITES, 2, parent="00001")
    assert screen.judge(late, memory).verdict.admitted
    long = late.moved(torch.full((EPISODES,), 10.0))
    assert "long" in codes(screen, memory, long)
    # Admitted while the new round had too few, it is found at its end.
    few = History()
    for number in range(3):
        few = screen.judge(submission(number, 3, parent="00002"), few).memory
    few = screen.judge(long, few, SITES).memory
    assert long.origin in few.owners
    for number in range(3, SITES):
        few = screen.judge(submission(number, 3, parent="00002"), few).memory
    assert list(review_cohort(few, "later", screen.config)[1]) == [long.site]


@pytest.mark.parametrize(("factor", "code"), [(0.3, "short"), (3.3, "long")])
def test_the_first_of_a_round_do_not_decide_for_all(screen, factor, code):
    honest, liars = range(8, 20), range(8)
    memory, found = round_of(screen, History(), [later(n, 2) for n in (*honest, *liars)])
    memory, _ = review_cohort(memory, "later", screen.config)
    assert not any(found.values())
    sent = [*(later(n, 3, factor) for n in liars), *(later(n, 3) for n in honest)]
    memory, found = round_of(screen, memory, sent)
    assert not any(found[f"site-{n:02d}"] for n in honest)
    _, doubted = review_cohort(memory, "later", screen.config)
    names = {f"site-{n:02d}" for n in liars}
    assert doubted.keys() <= names
    caught = {name for name in names if code in found[name]}
    caught |= {name for name, verdict in doubted.items() if verdict.code == code}
    # One of them would have been shorter than usual.
    assert len(caught) >= len(names) - 1


def test_whoever_missed_a_round_is_not_compared_with_the_lengths_of_a_better_release(screen):
    memory, _ = round_of(screen, History(), [later(n, 2) for n in range(SITES)])
    memory, _ = review_cohort(memory, "later", screen.config)
    memory, found = round_of(screen, memory, [later(n, 3, 0.4) for n in range(SITES - 2)])
    assert not any(found.values())
    assert review_cohort(memory, "later", screen.config)[1] == {}


def test_where_few_start_from_a_release_updates_are_compared_with_those_of_all(screen):
    memory = History()
    for round_ in (2, 3):
        sent = [later(n, round_) for n in range(6 * (round_ - 2), 6 * (round_ - 1))]
        memory, found = round_of(screen, memory, sent)
        assert not any(found.values())
    assert "long" in codes(screen, memory, later(SITES, 4, 6.0))
    assert not codes(screen, memory, later(SITES, 4))


def test_all_updates_may_not_be_as_long_as_a_single_one(screen, memory, newcomer):
    usual = memory.votes_on("first").usual_length("norm", screen.config.floor)
    wanted = usual.centre + 9 * usual.spread
    factors = wanted / newcomer.updates.norm(dim=1)
    assert "long" in codes(screen, memory, newcomer.moved(factors))
    factors[1] = 1.0
    assert "long" not in codes(screen, memory, newcomer.moved(factors))


def test_a_layer_that_changed_far_more_than_the_others_is_put_aside(screen, memory, newcomer):
    part = screen.anatomy.layers == 0
    longest = memory.votes_on("first").usual_length("layer.0", screen.config.floor)

    def stretched(deviations, which):
        weights = newcomer.weights.clone()
        for row in which:
            update = newcomer.updates[row][part]
            length = longest.centre + deviations * longest.spread
            weights[row, part] = newcomer.starts[row][part] + update * length / update.norm()
        return codes(screen, memory, replace(newcomer, weights=weights))

    assert "layer" in stretched(30, range(EPISODES))
    assert "layer" in stretched(80, [0])
    assert "layer" not in stretched(15, [0])


def test_the_first_of_a_round_do_not_decide_for_the_rest(screen):
    """Five of the first nine sites have updates a quarter as long as what is usual."""
    short = {0, 1, 2, 6, 8}

    def sent(number):
        one = submission(number)
        return one.moved(torch.full((EPISODES,), 0.25)) if number in short else one

    def admitted(sites):
        memory = History()
        for number in range(24):
            memory = screen.judge(sent(number), memory, sites).memory
        memory, found = review_cohort(memory, "first", screen.config)
        return {owner.site for owner in memory.owners} - set(found)

    honest = {submission(number).site for number in range(24) if number not in short}
    assert honest <= admitted(24)
    # As it would be if eight were enough.
    assert not honest <= admitted(0)


@pytest.mark.parametrize("sites", [3, 6])
@pytest.mark.parametrize("place", ["first", "last"])
def test_what_is_many_times_longer_is_found_among_a_few_sites_too(screen, sites, place):
    """The bias of a unit that is never active is enough to spoil every later start."""
    liar = submission(0)
    spoilt = liar.weights.clone()
    spoilt[:, math.prod(TARGET.layout.shapes[0])] = -1e6
    lies = {
        "long": replace(liar, weights=spoilt),
        "probe-length": replace(liar, probes=1e6 * liar.probes),
    }
    for code, lie in lies.items():
        honest = [submission(number) for number in range(1, sites)]
        memory = History()
        for one in [lie, *honest] if place == "first" else [*honest, lie]:
            judged = screen.judge(one, memory, sites)
            memory = judged.memory
            assert judged.verdict.admitted or one is lie
            if one is lie and place == "last" and sites > 3:
                assert judged.verdict.code == code
        found = review_cohort(memory, "first", screen.config)[1]
        assert {site: verdict.code for site, verdict in found.items()} in ({}, {"site-00": code})
        assert judged.verdict.code == code or found


def test_a_few_honest_sites_may_differ_several_times_over(screen):
    memory = History()
    for number, factor in enumerate([1.0, 4.0, 0.3, 2.0, 0.5]):
        one = submission(number).moved(torch.full((EPISODES,), factor))
        judged = screen.judge(one, memory, 5)
        assert judged.verdict.admitted, judged.verdict.reason
        memory = judged.memory
    assert review_cohort(memory, "first", screen.config)[1] == {}


def test_a_site_that_falls_silent_is_not_doubted_because_others_go_on(screen):
    memory = History()
    for number in range(SITES):
        one = submission(number, 2, parent="00001")
        memory = screen.judge(one.moved(torch.full((EPISODES,), 5.0)), memory, SITES).memory
    memory, found = review_cohort(memory, "later", screen.config)
    assert found == {}
    for number in range(1, SITES):
        memory = screen.judge(submission(number, 3, parent="00002"), memory, SITES).memory
    memory, found = review_cohort(memory, "later", screen.config)
    assert found == {}
    assert "site-00" in memory.votes_on("later").sites
    # An answer to an earlier round says nothing new either.
    late = screen.judge(submission(0, 1, parent="00000"), memory, 3 * SITES).memory
    assert len(late.owners) > len(memory.owners)
    assert review_cohort(late, "later", screen.config)[1] == {}
    # It is new once more when it comes again.
    again = submission(0, 4, parent="00003").moved(torch.full((EPISODES,), 20.0))
    memory = screen.judge(again, memory, 3 * SITES).memory
    assert list(review_cohort(memory, "later", screen.config)[1]) == ["site-00"]


def test_who_lied_while_few_were_known_is_looked_at_once_more_are(screen):
    memory = History()
    for number in range(5):
        one = submission(number, 2, parent="00001")
        lie = one.moved(torch.full((EPISODES,), 9.0)) if number == 0 else one
        memory = screen.judge(lie, memory, 5).memory
    memory, found = review_cohort(memory, "later", screen.config)
    assert found == {}
    memory = from_bytes(to_bytes(memory))
    for number in range(1, SITES):
        memory = screen.judge(submission(number, 3, parent="00002"), memory, SITES).memory
    assert list(review_cohort(memory, "later", screen.config)[1]) == ["site-00"]


def test_when_an_update_came_says_nothing_about_what_is_alike():
    common = torch.randn(1, 256, generator=rng(1))
    apart = torch.randn(300, 256, generator=rng(2))
    apart *= torch.where(torch.arange(300) < 150, 0.02, 0.6)[:, None]
    directions = torch.nn.functional.normalize(common + apart)
    limits = {
        least_angle(directions[order], [f"s{index}" for index in order], AdmissionConfig(alike=0.5))
        for order in (torch.randperm(300, generator=rng(seed)).tolist() for seed in range(6))
    }
    assert len(limits) == 1
