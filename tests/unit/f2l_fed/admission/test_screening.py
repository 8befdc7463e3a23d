"""Verdicts of the screening: accepted, shortened, quarantined or rejected, and why."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest
import torch

from f2l_fed.admission import CHECKS, REASONS, History, Verdict, review_cohort, screening
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import probe_update
from tests.support.attacks import ATTACKS
from tests.support.small import examples, rng
from tests.support.submissions import (
    ANCHOR,
    EPISODES,
    NUMBERS,
    SITES,
    STEPS,
    TARGET,
    codes,
    remembered,
    small_screen,
    submission,
)


def verdict(screen, history, one):
    return screen.judge(one, history).verdict


def numbered(newcomer, **numbers):
    return replace(newcomer, numbers={**NUMBERS, **numbers})


def test_an_honest_newcomer_is_accepted_and_remembered(screen, history, newcomer):
    judged = screen.judge(newcomer, history)
    assert judged.verdict == Verdict()
    assert judged.submission is newcomer
    assert judged.history.signature_ids.count(newcomer.id) == EPISODES
    statistics = judged.history.statistics_on("first")
    assert {"norm", "probe", "head", "head_change", "spread"} <= set(statistics.of(newcomer.site))


def test_a_first_submission_without_any_to_compare_with_is_accepted(screen, newcomer):
    assert verdict(screen, History(), newcomer).action == "accept"


def test_numbers_may_all_be_kept_back(screen, history, newcomer):
    assert verdict(screen, history, replace(newcomer, numbers={})).action == "accept"


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_kept_out_with_a_reason(screen, history, newcomer, attack):
    others = [submission(SITES - 1), newcomer]
    bad = ATTACKS[attack](newcomer, others, TARGET, rng(3))
    # The first of those in league can't be told from an honest site by its likeness.
    if attack.startswith("collusion"):
        history = screen.judge(
            ATTACKS[attack](submission(SITES + 1), others, TARGET, rng(4)), history
        ).history
    found = screen.judge(bad, history)
    assert found.verdict.action in ("clip", "quarantine", "reject")
    assert found.verdict.code in REASONS
    if found.verdict.action != "clip":
        assert found.history is history


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"weights": torch.zeros(EPISODES, 3)}, "weights"),
        ({"weights": torch.zeros(EPISODES, len(ANCHOR), dtype=torch.float64)}, "weights"),
        ({"probes": torch.zeros(1, len(ANCHOR))}, "probes"),
        ({"starts": ANCHOR[None]}, "starts"),
    ],
)
def test_tensors_of_another_form_are_rejected(screen, newcomer, changes, about):
    found = verdict(screen, History(), replace(newcomer, **changes))
    assert (found.action, found.code) == ("reject", "form")
    assert about in {finding.about for finding in found.findings}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("examples", 0.0),
        ("examples", 10.5),
        ("examples", 1e12),
        ("steps", 31.0),
        ("steps", -1.0),
        ("accuracy_after", 1.01),
        ("accuracy_before", -0.1),
        ("loss_after", -1.0),
        ("loss_after", nan),
        ("loss_before", inf),
        ("examples", inf),
    ],
)
def test_a_declared_number_that_can_not_be_true_is_rejected(screen, newcomer, name, value):
    found = verdict(screen, History(), numbered(newcomer, **{name: value}))
    assert (found.action, found.code, found.findings[0].about) == ("reject", "number", name)


def test_half_wrong_predictions_can_not_have_a_small_loss(screen, newcomer):
    # (1 - 0.5) ln 2 = 0.347
    bad = numbered(newcomer, accuracy_after=0.5, loss_after=0.3)
    assert verdict(screen, History(), bad).code == "contradiction"
    good = numbered(newcomer, accuracy_after=0.5, loss_after=0.35)
    assert verdict(screen, History(), good).action == "accept"


def test_a_loss_before_the_first_step_that_is_not_that_of_the_anchor_is_rejected(screen, newcomer):
    found = verdict(screen, History(), numbered(newcomer, loss_before=1.2))
    assert (found.code, found.findings[0].about) == ("contradiction", "loss_before")


def test_an_update_a_little_too_long_is_shortened_to_the_limit(screen, history, newcomer):
    stretched = newcomer.scaled(torch.full((EPISODES,), 1.2))
    tight = small_screen(clip=0.1, deviations=50.0, far=50.0, floor=0.05)
    judged = tight.judge(stretched, history)
    assert judged.verdict.action == "clip"
    most = judged.verdict.findings[0].figures["max_allowed"]
    assert judged.submission.updates.norm(dim=1).max() <= most * (1 + 1e-5)
    direction = torch.cosine_similarity(judged.submission.updates, newcomer.updates)
    torch.testing.assert_close(direction, torch.ones(EPISODES))


def test_a_copy_is_found_among_thousands_and_whatever_its_labels_are(screen, newcomer):
    history = remembered(screen, 3)
    many = torch.randn(4000, history.signatures.shape[1], generator=rng())
    history = History(
        statistics=history.statistics,
        direction_ids=history.direction_ids,
        directions=history.directions,
        signature_ids=(
            *[SubmissionId(f"other-{i}", 1, "") for i in range(4000)],
            *history.signature_ids,
        ),
        signatures=torch.cat([many, history.signatures]),
    )
    copy = replace(submission(1), site="thief")
    assert "copy" in codes(screen, history, copy)
    permuted = ATTACKS["outputs permuted"](copy, [], TARGET, rng())
    assert "copy" in codes(screen, history, permuted)
    assert "copy" not in codes(screen, history, newcomer)


def test_an_earlier_network_of_the_site_sent_again_is_stale(screen, history):
    again = replace(submission(5), round=2, parent="00001")
    assert "stale" in codes(screen, history, again)
    # From the same start it may well be the same network again.
    assert "stale" not in codes(screen, history, replace(submission(5), round=2))


def test_one_bad_network_among_good_ones_is_enough(screen, history, newcomer):
    bad = ATTACKS["outputs permuted"](newcomer, [], TARGET, rng())
    mixed = replace(newcomer, weights=torch.stack([newcomer.weights[0], bad.weights[1]]))
    assert verdict(screen, history, mixed).action == "quarantine"


def test_a_cheap_rejection_never_pays_for_a_dear_check(screen, newcomer):
    def never(*_):
        raise AssertionError("a dear check ran")

    careful = replace(screen, logits=never)
    for bad in (
        numbered(newcomer, steps=1e6),
        replace(newcomer, weights=newcomer.weights * nan),
        replace(newcomer, weights=newcomer.starts.clone()),
    ):
        assert careful.judge(bad, History()).verdict.action == "reject"
    assert list(CHECKS)[-2:] == ["outputs", "output_spread"]
    assert screening.CHECKS is CHECKS


def test_whoever_came_first_is_judged_again_with_all_others(screen):
    early = ATTACKS["update x 10"](submission(0), [], TARGET, rng())
    early = early.scaled(torch.full((EPISODES,), 0.5))
    history = screen.judge(early, History()).history
    assert early.id in history.signature_ids
    for number in range(1, SITES):
        history = screen.judge(submission(number), history).history
    history, found = review_cohort(history, "first", screen.config)
    assert list(found) == ["site-00"]
    assert found["site-00"].code == "long"
    # Until it sends something new it is left out and has no vote.
    assert history.excluded["site-00"].round == 1
    assert "longer" in history.excluded["site-00"].reason
    assert "site-00" not in history.statistics_on("first").sites
    assert review_cohort(history, "first", screen.config)[1] == {}
    better = screen.judge(submission(0, 2), history).history
    assert not better.excluded


def test_copies_are_found_however_many_came_before(screen):
    """Every copy puts its original near another site too, so that a third makes two thirds so."""
    lenient = small_screen(copy=1e-9, alike=1.0)

    def copy_of(number, site):
        one = submission(number)
        noise = torch.randn(one.weights.shape, generator=rng(number))
        noise *= 0.01 * one.updates.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        return replace(one, weights=one.weights + noise, site=site)

    history = History()
    for number in range(SITES):
        copy = copy_of(number - 1, f"site-{number:02d}")
        sent = copy if number % 3 == 2 else submission(number)
        history = lenient.judge(sent, history).history
    assert len(history.statistics_on("first").sites) == SITES
    assert "copy" in codes(screen, history, copy_of(0, "thief"))
    assert "copy" not in codes(screen, history, submission(SITES))


def test_the_second_look_does_not_depend_on_the_order(screen, history):
    other = History()
    lenient = small_screen(minimum=1000)
    for number in reversed(range(SITES)):
        other = lenient.judge(submission(number), other).history
    tight = replace(screen.config, deviations=1.5, clip=1.0, far=2.0, floor=0.01)
    found = review_cohort(history, "first", tight)[1]
    assert found
    again = review_cohort(other, "first", tight)[1]
    assert {site: v.reason for site, v in again.items()} == {s: v.reason for s, v in found.items()}


def test_a_verdict_survives_json():
    bad = small_screen().judge(
        replace(submission(0), numbers={"examples": inf, "steps": 99.0}), History()
    )
    value = bad.verdict.to_json()
    assert Verdict.from_json(value).to_json() == value
    assert "declared number" in Verdict.from_json(value).reason
    with pytest.raises(ValueError, match="unknown"):
        Verdict.from_json({"findings": [{"code": "mood", "action": "reject"}]})


def test_honest_sites_that_are_alike_are_left_alone_beside_others_that_are_not(screen):
    x, y = examples(TARGET, 40, seed=500)
    sent = []
    for number in range(SITES):
        one = submission(number)
        if number % 3:
            draws = rng(number)
            kept = [torch.randperm(40, generator=draws)[:38] for _ in range(EPISODES)]
            recipe = Recipe(steps=STEPS, lr=0.1)
            trained = [finetune(TARGET, ANCHOR, x[k], y[k], recipe, draws) for k in kept]
            probes = [
                probe_update(TARGET, ANCHOR, x[k], y[k], replace(recipe, steps=5)) for k in kept
            ]
            one = replace(one, weights=torch.stack(trained), probes=torch.stack(probes))
        sent.append(one)
    history = History()
    for one in sent:
        judged = screen.judge(one, history)
        assert judged.verdict == Verdict()
        history = judged.history
    assert review_cohort(history, "first", screen.config)[1] == {}


def test_a_single_other_site_is_enough_to_compare_with_where_the_limit_says_so(newcomer):
    alone = small_screen(minimum=1)
    history = alone.judge(submission(0), History()).history
    judged = alone.judge(newcomer, history)
    assert not {"copy", "alike"} & {finding.code for finding in judged.verdict.findings}
    assert "copy" in codes(alone, history, replace(submission(0), site="thief"))


def test_an_update_that_was_shortened_is_remembered_as_it_is_stored(screen, history):
    one = submission(20)
    factors = torch.ones(EPISODES)
    # One network is unusually long, the site's median one is not.
    factors[0] = 3.0
    judged = screen.judge(one.scaled(factors), history)
    assert judged.verdict.action == "clip", judged.verdict
    mine = [row for row, other in enumerate(judged.history.signature_ids) if other.site == one.site]
    stored = screen.sketch.signature(judged.submission.weights)
    torch.testing.assert_close(judged.history.signatures[mine], stored)
    # The second look judges it like any other: one more network that is far too long saves nobody.
    lengths = judged.history.statistics_on("first").of(one.site)["norm"].exp()
    own = judged.submission.updates.norm(dim=1)
    torch.testing.assert_close(lengths[1:].float(), torch.stack([*own.aminmax()]))
    assert (
        one.site in review_cohort(judged.history, "first", replace(screen.config, clip=4, far=4))[1]
    )


def test_a_length_that_depends_on_the_order_of_its_sum_is_no_way_in(screen, history, newcomer):
    """Near the largest number float32 holds: the sum of squares here, and overflow elsewhere."""
    weights = newcomer.weights.clone()
    weights[:, 0] = 0.999 * float(torch.finfo(torch.float32).max) ** 0.5
    judged = screen.judge(replace(newcomer, weights=weights), history)
    assert (judged.verdict.action, judged.verdict.code) == ("reject", "not-finite")


@pytest.mark.parametrize("level", [nan, inf, 3e19])
def test_starts_of_which_no_finite_update_comes_are_no_way_in(screen, history, newcomer, level):
    spoilt = replace(newcomer, starts=torch.full_like(newcomer.starts, level))
    judged = screen.judge(spoilt, history)
    assert (judged.verdict.action, judged.verdict.code) == ("reject", "not-finite")
