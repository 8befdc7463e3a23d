"""Arms: the start of each, accuracies with their interval, steps to a target."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from f2l_fed.config import load_config
from f2l_fed.evaluation.arm_names import ARMS, description, keys, label
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts
from f2l_fed.evaluation.summary import half_width, steps_to_target, summarise
from f2l_fed.generator.candidates import FittedRecords, candidates_for_service
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import accuracy_after
from f2l_fed.local_training.probe import probe_update, support_set
from f2l_fed.local_training.selection import select
from f2l_fed.local_training.site_streams import (
    NO_ROUND,
    draws_stream,
    steps_stream,
    support_stream,
)
from tests.support.small import examples, records, small_generator, small_target


def test_the_interval_is_students_over_sites():
    values = torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.9, 0.5]], dtype=torch.float64)
    # Mean .5, standard deviation sqrt(.13); the quantile of 2 degrees of freedom is 4.302653.
    expected = 4.302653 * sqrt(0.13) / sqrt(3)
    assert half_width(values).tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    curves = [{"prior": row, "random": row[::-1]} for row in values.tolist()]
    assert summarise(curves, (0, 5)) == {
        "steps": [0, 5],
        "arms": {
            "prior": {"accuracy": [0.5, 0.5], "ci95": [round(expected, 4), 0.0]},
            "random": {"accuracy": [0.5, 0.5], "ci95": [0.0, round(expected, 4)]},
        },
    }


def test_one_site_has_no_interval():
    found = summarise([{"prior": [0.25, 0.75]}], (0, 1))
    assert found["arms"]["prior"] == {"accuracy": [0.25, 0.75], "ci95": [0.0, 0.0]}


def part(**accuracy):
    return {
        "steps": [0, 1, 5],
        "arms": {arm: {"accuracy": row, "ci95": [0.0] * 3} for arm, row in accuracy.items()},
    }


def test_steps_to_target_are_the_fewest_that_reach_what_random_reaches_last():
    found = steps_to_target(
        part(
            random=[0.2, 0.3, 0.6],
            generated=[0.6, 0.7, 0.8],
            prior=[0.5, 0.61, 0.55],
            nearest=[0.3, 0.4, 0.59],
        )
    )
    assert found == {
        "target": {"arm": "random", "steps": 5, "accuracy": 0.6},
        "arms": {"random": 5, "generated": 0, "prior": 1, "nearest": None},
    }


KEYS = tuple(arm.key for arm in ARMS)
CONFIG = load_config(
    None,
    [
        "seed=5",
        "target.name=small",
        "probe.shots=2",
        "probe.steps=4",
        "candidates.samples=16",
        "candidates.keep=3",
    ],
)


@pytest.fixture(scope="module")
def arms():
    """The starts of one held-out site, with everything they were made from."""
    target, generator = small_target(), small_generator()
    contexts, weights = records(target.layout.size, 20)
    zoo = FittedRecords(contexts=contexts, weights=weights)
    site = HeldOutSite(name="h", train=examples(target, 12), test=examples(target, 90))
    release = ServedRelease(
        lineage=CONFIG.lineage,
        target=target,
        generator=generator,
        records=zoo,
        probe=CONFIG.probe,
        candidates=CONFIG.candidates,
    )
    return target, generator, zoo, site, starts(release, site)


def probed(target, generator, site):
    x, y = site.train
    support = support_set(y, 2, support_stream(CONFIG.lineage, "h"))
    return probe_update(target, generator.prior.anchor, x[support], y[support], CONFIG.probe.recipe)


def test_every_arm_has_a_label_of_its_own_that_fits_beside_a_chart():
    labels = [label(key) for key in KEYS]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 13
    assert all(description(key) for key in KEYS)
    assert (label("another_arm"), description("another_arm")) == ("another arm", "")


def test_every_arm_has_a_start(arms):
    target, generator, zoo, site, found = arms
    assert tuple(found) == keys("all")
    context = probed(target, generator, site)
    order = (zoo.contexts - context).norm(dim=1).argsort()
    torch.testing.assert_close(found["prior"], generator.expect(context[None])[0])
    assert torch.equal(found["nearest"], zoo.weights[order[0]])
    torch.testing.assert_close(found["soup"], zoo.weights[order[:8]].mean(0))
    assert torch.equal(found["probe"], generator.prior.anchor + context)


@pytest.mark.parametrize(("arm", "evaluations"), [("generated", None), ("gaussian", 0)])
def test_what_a_site_really_starts_from_is_its_choice_of_what_is_offered(arms, arm, evaluations):
    target, generator, zoo, site, found = arms
    offered = candidates_for_service(
        generator,
        zoo,
        probed(target, generator, site),
        found["prior"],
        CONFIG.candidates,
        draws_stream(CONFIG.lineage, "h"),
        evaluations=evaluations,
    )
    _, best = select(target, offered, *site.train, keep=3)
    assert torch.equal(found[arm], best)
    assert not torch.equal(found["gaussian"], found["generated"])


def test_every_arm_takes_the_same_local_steps(arms):
    target, _, _, site, found = arms
    recipe = Recipe(steps=0, batch=5)
    curves = measure(target, found, site, recipe, "lin", (0, 2))
    assert tuple(curves) == keys("all")
    for arm, start in found.items():
        stream = steps_stream("lin", NO_ROUND, "h")
        expected = accuracy_after(target, start, site.train, site.test, recipe, stream, (0, 2))
        assert curves[arm] == expected
