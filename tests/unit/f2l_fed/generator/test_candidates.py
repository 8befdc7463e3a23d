"""The candidates of a site, and its selection among them by its own examples."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.flow import draw
from f2l_fed.generator.candidates import (
    FittedRecords,
    candidates_for_service,
    candidates_for_training,
)
from f2l_fed.generator.config import CandidatesConfig
from f2l_fed.generator.nearest_records import NearestRecords
from f2l_fed.local_training.candidate_kinds import BLEND
from f2l_fed.local_training.selection import select
from f2l_fed.targets import Target
from tests.support.small import records, rng, small_generator

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


def test_the_mean_of_the_best_draws_is_chosen_where_it_is_better_than_any_of_them():
    # Each is sure of one class and wrong about the other; only together they are right.
    left, right = torch.tensor([[4.0, 0, 0, 0.5], [0.5, 0, 0, 4]])
    offered = {"sample-0": left, "sample-1": scaled(-9.0), "sample-2": right, "prior": scaled(0.1)}
    kind, weights = select(LINEAR, offered, X, Y, keep=2)
    assert kind == BLEND
    assert torch.equal(weights, (left + right) / 2)
    assert select(LINEAR, offered, X, Y)[0] in ("sample-0", "sample-2")


def test_a_blend_that_is_no_better_is_not_chosen():
    offered = {"sample-0": scaled(3.0), "sample-1": scaled(-3.0), "prior": scaled(5.0)}
    assert select(LINEAR, offered, X, Y, keep=2)[0] == "prior"
    del offered["prior"]
    assert select(LINEAR, offered, X, Y, keep=2)[0] == "sample-0"


def test_a_draw_that_overflows_is_not_blended_while_there_are_others():
    offered = {
        "sample-0": scaled(float("nan")),
        "sample-1": torch.tensor([4.0, 0, 0, 0.5]),
        "sample-2": torch.tensor([0.5, 0, 0, 4.0]),
    }
    kind, weights = select(LINEAR, offered, X, Y, keep=2)
    assert kind == BLEND
    assert weights.isfinite().all()


def in_training(generator, zoo, context, expected, config, draws):
    """`candidates_for_training` with one episode, and the arguments of the service."""
    near = (
        NearestRecords.of(zoo).weights_for(context[None], [range(0)]) if config.nearest else [None]
    )
    (made,) = candidates_for_training(generator, near, expected[None], config, draws)
    return made


def setting(count=10):
    generator = small_generator()
    contexts, weights = records(generator.codec.symmetry.size, count)
    expected = generator.expect(contexts[:1])[0]
    return (
        generator,
        FittedRecords(contexts=contexts, weights=weights),
        contexts[4] + 0.01,
        expected,
    )


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("make", [in_training, candidates_for_service])
def test_candidates_are_prior_mean_and_draws(make, count):
    generator, _, near, expected = setting()
    config = CandidatesConfig(samples=count, training_samples=count)
    offered = make(generator, None, near, expected, config, rng(2))
    draws = [f"sample-{index}" for index in range(count)]
    assert list(offered) == ["prior", "global_mean", *draws]
    assert torch.equal(offered["prior"], expected)
    assert torch.equal(offered["global_mean"], generator.mean)
    drawn = [offered[kind].tolist() for kind in draws]
    assert all(drawn.count(one) == 1 for one in drawn)


@pytest.mark.parametrize("make", [in_training, candidates_for_service])
def test_the_nearest_record_is_a_candidate_only_where_it_is_asked_for(make):
    generator, zoo, near, expected = setting()
    without = make(generator, zoo, near, expected, CandidatesConfig(), rng(2))
    offered = make(generator, zoo, near, expected, CandidatesConfig(nearest=True), rng(2))
    assert torch.equal(offered.pop("nearest"), zoo.weights[4])
    assert list(without) == list(offered)
    assert all(torch.equal(without[kind], offered[kind]) for kind in offered)


def test_the_service_draws_wider_than_training():
    generator, zoo, near, expected = setting()

    def spread(make, temperature):
        config = CandidatesConfig(samples=64, training_samples=64, temperature=temperature)
        offered = make(generator, zoo, near, expected, config, rng(2))
        return torch.stack([w for kind, w in offered.items() if "sample" in kind]).std(0).mean()

    assert spread(candidates_for_service, 3.0) > 1.5 * spread(in_training, 3.0)
    assert spread(candidates_for_service, 1.0) == spread(in_training, 3.0)


def test_without_evaluations_the_draws_are_normal_around_the_prior():
    generator, zoo, near, expected = setting()
    config = CandidatesConfig(samples=3, temperature=2.0)
    offered = candidates_for_service(generator, zoo, near, expected, config, rng(2), evaluations=0)
    context = generator.codec.encode(expected[None]).expand(3, -1)
    end = draw("prior", context, generator.spread, generator.codec.shape, rng(2), temperature=2.0)
    moved = generator.codec.displacement(context, end)
    torch.testing.assert_close(offered["sample-1"], expected + moved[1])


def test_the_nearest_records_are_those_with_the_nearest_contexts():
    zoo = FittedRecords(contexts=torch.tensor([[0.0], [5], [2]]), weights=torch.eye(3))
    assert zoo.nearest(torch.tensor([1.9]), 2).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert len(zoo.nearest(torch.tensor([1.9]), 8)) == 3


@pytest.mark.parametrize(
    "wrong", [{"samples": -1}, {"keep": 0}, {"temperature": -1.0}, {"training_samples": -1}]
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises((ConfigError, UsageError)):
        CandidatesConfig(**wrong)


def test_draws_of_several_families_are_averaged_within_each_alone():
    left, right = torch.tensor([[4.0, 0, 0, 0.5], [0.5, 0, 0, 4]])
    offered = {"sample-0": left, "sample-1-1": scaled(-9.0), "sample-1-2": right, "sample-3": right}
    kind, weights = select(LINEAR, offered, X, Y, keep=2)
    assert kind == BLEND
    assert torch.equal(weights, (left + right) / 2)
    apart = {"sample-0": left, "sample-1-1": right}
    assert select(LINEAR, apart, X, Y, keep=2)[0] in apart
