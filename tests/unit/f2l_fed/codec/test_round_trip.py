"""A codec's round trip is measured on networks that it never saw, by their predictions."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.codec import CODECS, accuracy_kept, agreement, fit_pca, functional_round_trip
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.synthetic_inputs import synthetic_inputs
from tests.support.codecs import trained_networks
from tests.support.small import examples, rng, small_target

TARGET = small_target()
SYMMETRY = OutputSymmetry.of(TARGET, enabled=True)
INPUTS = synthetic_inputs(TARGET.input_shape, 300, rng(3))


def fit(common, rows):
    return lambda weights: fit_pca(weights, SYMMETRY, common=common, rows=rows)


def test_a_network_agrees_with_itself_and_with_an_equal_share_of_others_by_chance():
    weights = trained_networks()
    assert agreement(TARGET, weights, weights.clone(), INPUTS) == 1
    assert 0.2 < agreement(TARGET, weights, weights.roll(1, 0), INPUTS) < 0.5


def test_agreement_is_the_mean_share_of_equal_predictions():
    weights = trained_networks()[:2]
    relabelled = SYMMETRY.join(SYMMETRY.split(weights[:1]).permuted(torch.tensor([0, 2, 1])))
    first = TARGET.logits(weights[0], INPUTS).argmax(1)
    found = agreement(TARGET, weights, torch.cat([relabelled, weights[1:]]), INPUTS)
    assert found == pytest.approx((1 + float((first == 0).float().mean())) / 2)


def test_the_codec_is_fitted_on_four_fifths_and_measured_on_the_rest():
    weights, given = trained_networks(), []

    def remembering(rows):
        given.append(rows)
        return fit(5, 2)(rows)

    found = functional_round_trip(TARGET, remembering, weights, INPUTS)
    assert torch.equal(given[0], weights[:32])
    unseen, codec = weights[32:], fit(5, 2)(weights[:32])
    expected = agreement(TARGET, unseen, codec.decode(codec.encode(unseen)), INPUTS)
    assert found == pytest.approx(expected)


def test_more_components_keep_more_of_what_networks_do():
    few, some, many = (
        functional_round_trip(TARGET, fit(*sizes), trained_networks(), INPUTS)
        for sizes in ((1, 1), (6, 3), (40, 40))
    )
    assert few < some < many
    assert many > 0.95


def test_accuracy_kept_compares_with_each_networks_own_accuracy():
    weights = trained_networks()[30:]
    tests = [examples(TARGET, 60, seed) for seed in range(30, 40)]
    codec = fit(2, 1)(trained_networks()[:30])
    copies = codec.decode(codec.encode(weights))
    before, after = (
        sum(loss_and_accuracy(TARGET, w, x, y)[1] for w, (x, y) in zip(some, tests, strict=True))
        for some in (weights, copies)
    )
    assert before / 10 > 0.8
    assert accuracy_kept(TARGET, codec, weights, tests) == pytest.approx(after / before)
    everything = fit(100, 100)(trained_networks())
    assert accuracy_kept(TARGET, everything, weights, tests) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", CODECS)
def test_a_codec_by_its_name_keeps_most_of_what_networks_do(kind):
    def named(weights):
        return CODECS[kind].fit(weights, SYMMETRY, TARGET, rng(), common=8, rows=4)

    assert functional_round_trip(TARGET, named, trained_networks(), INPUTS) > 0.65
