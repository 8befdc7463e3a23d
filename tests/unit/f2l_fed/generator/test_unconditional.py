"""Networks are drawn for a task from what trained ones have in common, without any context."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from f2l_fed.audit.diagnostics import (
    dispersion,
    leave_one_out_distances,
    max_error_iou,
    nearest_distances,
)
from f2l_fed.codec.config import CodecConfig
from f2l_fed.errors import ConfigError, LayoutMismatch, UsageError
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.unconditional import MIN_NETWORKS, UnconditionalConfig, fit_unconditional
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.symmetry.weight_matching import Canonicaliser
from tests.support.small import examples, rng, small_target

TARGET = small_target(features=6, classes=4, hidden=12)
TASK = examples(TARGET, 80)
TEST = tuple(part[80:] for part in examples(TARGET, 380))
RECIPE = Recipe(steps=40, lr=0.1, batch=16)


def config(*, source="gaussian", canonical="measured", head="drawn"):
    flow = FlowConfig(
        source=source, dropout=1, width=16, depth=1, steps=40, batch=16, check_every=20
    )
    return UnconditionalConfig(
        canonical=canonical, codec=CodecConfig(common=8), flow=flow, head=head
    )


@cache
def trained():
    """Forty networks for one task, each from an initialisation of its own."""
    return torch.stack(
        [finetune(TARGET, TARGET.initialise(rng(i)), *TASK, RECIPE, rng(i)) for i in range(40)]
    )


@cache
def fitted(*, source="gaussian", canonical="measured", head="drawn"):
    chosen = config(source=source, canonical=canonical, head=head)
    return fit_unconditional(trained(), TARGET, chosen, rng(1))


def accuracies(weights):
    return torch.tensor([loss_and_accuracy(TARGET, row, *TEST)[1] for row in weights])


def wrong(weights):
    x, y = TEST
    return torch.stack([TARGET.logits(row, x).argmax(1) != y for row in weights])


@pytest.mark.parametrize("source", ["gaussian", "kaiming"])
def test_the_same_seed_gives_the_same_bits(source):
    again = fit_unconditional(trained(), TARGET, config(source=source), rng(1))
    first = fitted(source=source).sample(3, rng(2))
    assert torch.equal(again.sample(3, rng(2)), first)
    assert not torch.equal(again.sample(3, rng(3)), first)


@pytest.mark.parametrize("source", ["gaussian", "kaiming"])
def test_generated_networks_are_good_without_a_local_step(source):
    drawn = accuracies(fitted(source=source).sample(50, rng(4), 16))
    assert float(accuracies(trained()).mean()) > 0.9
    assert float(drawn.mean()) > 0.85


def test_generated_networks_are_new_and_differ_from_each_other():
    model = fitted()
    drawn, seen = model.sample(40, rng(5), 16), model.form(trained())
    assert nearest_distances(drawn, seen).min() > 0.4 * leave_one_out_distances(seen).median()
    assert 0.5 < dispersion(drawn, seen) < 1.1
    assert max_error_iou(wrong(drawn), wrong(seen)).mean() < 0.9


def test_solved_output_layers_make_far_draws_as_good_as_trained_networks():
    drawn, solved = (fitted(head=choice).sample(50, rng(6), 0) for choice in ("drawn", "solved"))
    seen = fitted().form(trained())
    assert accuracies(solved).mean() > accuracies(drawn).mean() + 0.003
    assert accuracies(solved).min() > accuracies(drawn).min()
    assert accuracies(solved).mean() > 0.98 * accuracies(trained()).mean()
    far = nearest_distances(solved, seen).median() / leave_one_out_distances(seen).median()
    assert far > 0.85


def test_solved_output_layers_are_the_default():
    assert UnconditionalConfig().head == "solved"
    assert fitted(head="solved").heads is not None
    assert fitted().heads is None


def test_networks_of_different_starts_are_brought_to_canonical_weights():
    model = fitted()
    assert model.gain is not None
    assert model.gain.helps
    assert model.canonical is not None
    assert (model.form(trained()) - trained()).abs().max() > 0.1
    x = TEST[0][:20]
    for form, row in zip(model.form(trained()[:3]), trained(), strict=False):
        torch.testing.assert_close(
            TARGET.logits(form, x), TARGET.logits(row, x), rtol=1e-3, atol=1e-3
        )


def test_networks_that_the_codec_keeps_already_stay_as_they_are():
    start = trained()[0]
    corners = torch.stack([finetune(TARGET, start, *TASK, RECIPE, rng(i)) for i in (7, 8, 9)])
    weights = torch.rand(30, 3, generator=rng()).softmax(1) @ corners
    model = fit_unconditional(weights, TARGET, config(), rng(1))
    assert model.gain is not None
    assert not model.gain.helps
    assert model.canonical is None
    assert model.form(weights) is weights
    assert model.codec.decode(model.codec.encode(weights)).sub(weights).abs().max() < 1e-3


def test_the_round_trip_is_not_asked_where_the_configuration_decides():
    always, never = fitted(canonical="always"), fitted(canonical="never")
    assert isinstance(always.canonical, Canonicaliser)
    assert never.canonical is None
    assert always.gain is never.gain is None


def test_canonical_weights_make_generated_networks_better():
    with_, without = (
        accuracies(fitted(canonical=choice).sample(50, rng(6), 16)).mean()
        for choice in ("always", "never")
    )
    assert with_ > without + 0.1


def test_without_an_evaluation_the_source_is_decoded():
    model = fitted()
    latents = model.codec.encode(model.sample(500, rng(7), 0))
    assert latents.mean(0).abs().max() < 0.2
    assert latents.std(0).sub(1).abs().max() < 0.2


def test_one_evaluation_leads_to_the_mean_network():
    model = fitted()
    drawn, seen = model.sample(20, rng(8), 1), model.form(trained())
    assert dispersion(drawn, seen) < 0.1
    assert (drawn.mean(0) - seen.mean(0)).norm() < 0.1 * (seen - seen.mean(0)).norm(dim=1).mean()


def test_no_networks_can_be_drawn_as_well():
    assert fitted().sample(0, rng()).shape == (0, TARGET.layout.size)
    assert fitted(source="kaiming").sample(0, rng()).shape == (0, TARGET.layout.size)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda zoo: zoo[: MIN_NETWORKS - 1], UsageError, "too few networks"),
        (lambda zoo: zoo[:, 1:], LayoutMismatch, "not those of the target"),
        (lambda zoo: zoo[0], LayoutMismatch, "not those of the target"),
        (lambda zoo: zoo[:1].repeat(9, 1), UsageError, "all networks are equal"),
        (lambda zoo: zoo.index_fill(0, torch.tensor([7]), torch.nan), UsageError, "network 7"),
    ],
)
def test_what_is_no_zoo_is_refused_in_a_sentence(spoil, error, message):
    with pytest.raises(error) as caught:
        fit_unconditional(spoil(trained()), TARGET, config(), rng())
    assert message in str(caught.value)


@pytest.mark.parametrize("flow", [FlowConfig(), FlowConfig(source="gaussian", dropout=0.1)])
def test_a_flow_that_needs_contexts_is_refused(flow):
    with pytest.raises(ConfigError, match="depends on a context"):
        UnconditionalConfig(flow=flow)


@pytest.mark.parametrize(("count", "evaluations"), [(-1, 4), (3, -2)])
def test_fewer_than_none_is_refused(count, evaluations):
    with pytest.raises(UsageError, match="a negative number of networks"):
        fitted().sample(count, rng(), evaluations)
