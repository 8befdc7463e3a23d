"""Heads of sites with different numbers of classes are compared row by row, not by their length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.admission import AdmissionConfig, History, Screen, Submission, review_cohort
from f2l_fed.admission.zoo_records import AdmittedRecords, extend_history
from f2l_fed.local_training.logistic_head import logistic_head
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import padded
from tests.support.small import rng

HEAD = Body.of(build_target("mlp", (6,), 12)).head
FEATURES = 32
PAIRS = 3


def sent(number: int, classes: int, stretch: float = 1.0) -> Submission:
    """The heads of an honest site on clouds of its own, then stretched."""
    draws = rng(number)
    centres = 1.5 * torch.randn(classes, FEATURES, generator=draws).relu()
    y = torch.arange(20 * classes) % classes
    x = centres[y] + 0.6 * torch.randn(len(y), FEATURES, generator=draws)
    few = [torch.randperm(len(y), generator=draws)[: 5 * classes] for _ in range(PAIRS)]
    contexts = [logistic_head(x[f], y[f], classes, strength=0.25 / len(f)) for f in few]
    whole = logistic_head(x, y, classes, strength=0.001)
    weights = padded(whole.expand(PAIRS, -1), HEAD.layout)
    return Submission(
        site=f"site-{number:02d}",
        round=1,
        parent="",
        weights=stretch * weights,
        starts=torch.zeros_like(weights),
        probes=padded(torch.stack(contexts), HEAD.layout),
        numbers={},
        steps=3,
        solved=True,
    )


def admitted(counts: list[int]) -> tuple[Screen, History]:
    """The history after sites with these numbers of classes, none of which is found odd."""
    screen = Screen.of(HEAD, "test/0", PAIRS, AdmissionConfig())
    history = History()
    for number, classes in enumerate(counts):
        judged = screen.judge(sent(number, classes), history)
        assert judged.verdict.action == "accept", (number, judged.verdict.reason)
        history = judged.history
    history, excluded = review_cohort(history, "first", AdmissionConfig())
    assert excluded == {}
    return screen, history


@pytest.mark.parametrize("counts", [[3] * 11 + [12], [12] * 11 + [3], [3, 5, 12] * 4])
def test_sites_with_few_and_with_many_classes_are_all_admitted(counts):
    screen, history = admitted(counts)
    for number, classes in ((20, 3), (21, 12)):
        long = screen.judge(sent(number, classes, stretch=30), history).verdict
        assert long.action == "quarantine"
        assert "long" in {finding.code for finding in long.findings}


def test_a_head_for_few_classes_that_is_too_long_is_shortened_by_its_own_rows():
    screen, history = admitted([12] * 12)
    honest = sent(30, 3)
    # A single one of several may be long by chance.
    long = replace(honest, weights=honest.weights * torch.tensor([[4.0], [1.0], [1.0]]))
    judged = screen.judge(long, history)
    assert judged.verdict.action == "clip"
    (found,) = (one for one in judged.verdict.findings if one.code == "long")
    lengths = judged.submission.updates.norm(dim=1)
    # With 12 rows as long as its 3 it would be twice as long.
    assert 2 * float(lengths[0]) == pytest.approx(found.figures["max_allowed"], rel=1e-4)
    assert torch.equal(judged.submission.weights[1:], honest.weights[1:])


@pytest.mark.parametrize("parent", ["", "00001"])
def test_a_history_that_is_read_from_the_zoo_has_the_same_lengths(parent):
    screen = Screen.of(HEAD, "test/0", PAIRS, AdmissionConfig())
    one = replace(sent(1, 3), parent=parent)
    kept = screen.judge(one, History()).history.statistics_on(one.id.kind).of(one.site)
    record = AdmittedRecords(
        site=one.site,
        round=one.round,
        parent=parent,
        weights=one.weights,
        probes=one.probes,
        metrics=[{"update_norm": float(length)} for length in one.updates.norm(dim=1)],
    )
    read = extend_history([record], screen.sketch, torch.zeros(HEAD.layout.size))
    found = read.statistics_on(one.id.kind).of(one.site)
    for name in ("norm", "probe"):
        torch.testing.assert_close(found[name], kept[name], rtol=1e-5, atol=1e-5)
