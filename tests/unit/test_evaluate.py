"""Arms: the start with the lowest loss, accuracies with their interval, steps to a target."""

from __future__ import annotations

from functools import partial
from math import sqrt

import pytest
import torch
from torch import nn

from f2l_fed.evaluate import (
    ARMS,
    HeldOutSite,
    Records,
    candidates,
    half_width,
    measure,
    select,
    starts,
    steps_to_target,
    summarise,
)
from f2l_fed.finetune import Recipe, accuracy_after
from f2l_fed.probe import probe_update, support_set
from f2l_fed.seeds import generator_for
from f2l_fed.targets import Target
from tests.support.small import examples, records, rng, small_generator, small_target

LINEAR = Target.of("linear", partial(nn.Linear, 2, 2, bias=False), (2,), 2)
X, Y = torch.eye(2), torch.arange(2)


def scaled(factor):
    """Correct for a positive factor, and the surer the larger it is."""
    return (factor * torch.eye(2)).reshape(-1)


def test_the_candidate_with_the_lowest_loss_is_chosen():
    offered = {"bad": scaled(-1.0), "good": scaled(3.0), "fair": scaled(1.0)}
    kind, weights = select(LINEAR, offered, X, Y)
    assert kind == "good"
    assert torch.equal(weights, offered["good"])


def test_of_equally_correct_candidates_the_surer_one_is_chosen():
    assert select(LINEAR, {"fair": scaled(1.0), "good": scaled(3.0)}, X, Y)[0] == "good"


@pytest.mark.parametrize("order", [("nan", "fair"), ("fair", "nan")])
def test_a_candidate_that_overflows_is_never_chosen(order):
    offered = {"nan": scaled(float("nan")), "fair": scaled(-5.0)}
    assert select(LINEAR, {kind: offered[kind] for kind in order}, X, Y)[0] == "fair"


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


def offer(samples):
    generator = small_generator()
    contexts, weights = records(generator.codec.symmetry.size, 10)
    expected = generator.expect(contexts[:1])[0]
    zoo = Records(contexts=contexts, weights=weights)
    near = contexts[4] + 0.01
    return generator, weights, expected, candidates(generator, zoo, near, expected, samples, rng(2))


@pytest.mark.parametrize("samples", [0, 3])
def test_a_server_offers_prior_mean_nearest_and_samples(samples):
    generator, weights, expected, offered = offer(samples)
    assert list(offered) == ["prior", "global_mean", "nearest"] + [
        f"sample-{index}" for index in range(samples)
    ]
    assert torch.equal(offered["prior"], expected)
    assert torch.equal(offered["global_mean"], generator.mean)
    assert torch.equal(offered["nearest"], weights[4])
    drawn = [offered[f"sample-{index}"].tolist() for index in range(samples)]
    assert all(drawn.count(one) == 1 for one in drawn)


@pytest.fixture(scope="module")
def arms():
    """The starts of one held-out site, with everything they were made from."""
    target, generator = small_target(), small_generator()
    contexts, weights = records(target.layout.size, 20)
    zoo = Records(contexts=contexts, weights=weights)
    site = HeldOutSite(name="h", train=examples(target, 12), test=examples(target, 90))
    recipe = Recipe(steps=4)
    found = starts(target, generator, zoo, "lin", site, shots=2, probe=recipe, samples=16)
    return target, generator, zoo, site, recipe, found


def test_every_arm_has_a_start(arms):
    target, generator, zoo, site, recipe, found = arms
    assert tuple(found) == ARMS
    x, y = site.train
    support = support_set(y, 2, generator_for("lin", "h", "probe"))
    context = probe_update(target, generator.prior.anchor, x[support], y[support], recipe)
    order = (zoo.contexts - context).norm(dim=1).argsort()
    torch.testing.assert_close(found["prior"], generator.expect(context[None])[0])
    assert torch.equal(found["nearest"], zoo.weights[order[0]])
    torch.testing.assert_close(found["soup"], zoo.weights[order[:8]].mean(0))
    assert torch.equal(found["probe"], generator.prior.anchor + context)


def test_what_a_site_really_starts_from_is_the_best_offer_on_its_own_examples(arms):
    target, generator, zoo, site, recipe, found = arms
    x, y = site.train
    support = support_set(y, 2, generator_for("lin", "h", "probe"))
    context = probe_update(target, generator.prior.anchor, x[support], y[support], recipe)
    stream = generator_for("lin", "h", "candidates")
    offered = candidates(generator, zoo, context, found["prior"], 16, stream)
    kind, best = select(target, offered, x, y)
    assert kind.startswith("sample")
    assert torch.equal(found["generated"], best)


def test_every_arm_takes_the_same_local_steps(arms):
    target, _, _, site, _, found = arms
    recipe = Recipe(steps=0, batch=5)
    curves = measure(target, found, site, recipe, "lin", (0, 2))
    assert tuple(curves) == ARMS
    for arm, start in found.items():
        stream = generator_for("lin", "h", "local")
        expected = accuracy_after(target, start, site.train, site.test, recipe, stream, (0, 2))
        assert curves[arm] == expected
