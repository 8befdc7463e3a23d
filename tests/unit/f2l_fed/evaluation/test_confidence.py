"""The confidence of networks at held-out sites."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.evaluation.confidence import calibration_error, predictions, summarise_confidence


def drawn(scale, count=20_000):
    """Logits and labels of a network that is right as often as it says where scale is 1."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 4, generator=rng) * 2
    y = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
    return scale * logits, y


def test_true_probabilities_have_almost_no_error_and_false_ones_have():
    assert calibration_error(predictions(*drawn(1)).bins) < 0.01
    assert calibration_error(predictions(*drawn(4)).bins) > 0.1
    assert calibration_error(predictions(*drawn(0.2)).bins) > 0.2


def test_errors_are_pooled_over_sites():
    # 0.9 sure and right in 8 of 10 here, in 10 of 10 there: right in 9 of 10 together.
    logits = torch.tensor([[0.9, 0.1]]).log().expand(10, 2)
    one = predictions(logits, torch.tensor([0] * 8 + [1] * 2))
    other = predictions(logits, torch.zeros(10, dtype=torch.int64))
    found = summarise_confidence([{"a": one}, {"a": other}])["a"]
    assert found["calibration_error"] == pytest.approx(0, abs=1e-6)
    assert calibration_error(one.bins) == pytest.approx(0.1)


def test_the_least_confident_fifth_is_left_out():
    logits = torch.tensor([[4.0, 0.0]] * 8 + [[0.1, 0.0]] * 2)
    y = torch.tensor([0] * 8 + [1] * 2)
    assert predictions(logits, y).confident == 1
    assert predictions(logits, y).loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, y)), rel=1e-6
    )
