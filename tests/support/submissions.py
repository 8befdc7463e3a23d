"""Submissions of a small federation that needs no training: short, honest and alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from f2l_fed.admission import AdmissionConfig, History, Screen, Submission
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import anchor, probe_update
from tests.support.small import examples, rng, small_target

TARGET = small_target(features=6, classes=4, hidden=8)
LINEAGE = "small/0"
ANCHOR = anchor(TARGET, LINEAGE)
EPISODES = 2
SITES = 12
STEPS = 30
NUMBERS: Mapping[str, float] = {
    "examples": 40.0,
    "steps": float(STEPS),
    "loss_before": 1.386294,
    "loss_after": 0.4,
    "accuracy_before": 0.25,
    "accuracy_after": 0.9,
}


def submission(number: int, round_: int = 1, **changes: object) -> Submission:
    """An honest site's, from the anchor, on clouds of its own in an order of its own."""
    x, y = examples(TARGET, 40, seed=number)
    recipe, short = Recipe(steps=STEPS, lr=0.1, batch=10), Recipe(steps=5, lr=0.1)
    weights, probes = [], []
    for episode in range(EPISODES):
        draws = rng(1000 * number + 10 * round_ + episode)
        weights.append(finetune(TARGET, ANCHOR, x, y, recipe, draws))
        few = torch.randperm(40, generator=draws)[:30]
        probes.append(probe_update(TARGET, ANCHOR, x[few], y[few], short))
    fields: dict[str, object] = {
        "site": f"site-{number:02d}",
        "round": round_,
        "parent": "",
        "weights": torch.stack(weights),
        "starts": ANCHOR.expand(EPISODES, -1),
        "probes": torch.stack(probes),
        "numbers": NUMBERS,
        "steps": STEPS,
        **changes,
    }
    return Submission(**fields)  # type: ignore[arg-type]


def small_screen(**limits: object) -> Screen:
    return Screen.of(TARGET, LINEAGE, EPISODES, AdmissionConfig(**limits))  # type: ignore[arg-type]


def remembered(screen: Screen, count: int) -> History:
    """The history after so many honest submissions."""
    history = History()
    for number in range(count):
        judged = screen.judge(submission(number), history)
        assert judged.verdict.admitted, judged.verdict.reason
        history = judged.history
    return history


def codes(screen: Screen, history: History, one: Submission) -> set[str]:
    """What is found against a submission."""
    return {finding.code for finding in screen.judge(one, history).verdict.findings}
