"""What is rejected at once, and what is left out because it is unlike the others."""

from __future__ import annotations

from math import exp, inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.admission import AdmissionConfig, objection, outliers
from f2l_fed.errors import ConfigError
from tests.support.small import rng

START, WEIGHTS, PROBE = torch.randn(3, 8, generator=rng())
NUMBERS = {
    "examples": 40.0,
    "steps": 15.0,
    "loss_before": 1.6,
    "loss_after": 0.2,
    "accuracy_before": 0.0,
    "accuracy_after": 1.0,
}
ALIKE = {f"s{i}": exp(i / 10) for i in range(10)}


def with_value(vector, value):
    changed = vector.clone()
    changed[3] = value
    return changed


def test_a_sound_update_meets_no_objection_whatever_it_keeps_to_itself():
    assert objection(WEIGHTS, START, PROBE, NUMBERS) == ""
    assert objection(WEIGHTS, START, PROBE, {}) == ""


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_vectors_that_are_not_finite_are_rejected(value):
    assert objection(with_value(WEIGHTS, value), START, PROBE, {}).startswith("weights")
    assert objection(WEIGHTS, START, with_value(PROBE, value), {}).startswith("a probe")


def test_a_network_that_did_not_change_is_rejected():
    assert objection(START.clone(), START, PROBE, NUMBERS) == "an unchanged network"
    assert objection(with_value(START, 0.5), START, PROBE, NUMBERS) == ""


def test_an_empty_probe_is_rejected():
    assert objection(WEIGHTS, START, torch.zeros(8), NUMBERS) == "an empty probe"


@pytest.mark.parametrize("name", ["accuracy_before", "accuracy_after"])
@pytest.mark.parametrize("value", [-0.01, 1.01, nan, inf])
def test_impossible_accuracies_are_rejected(name, value):
    assert objection(WEIGHTS, START, PROBE, NUMBERS | {name: value}) == f"{name} outside [0, 1]"


@pytest.mark.parametrize("name", ["examples", "steps", "loss_before", "loss_after"])
@pytest.mark.parametrize("value", [-1.0, nan, inf])
def test_impossible_counts_and_losses_are_rejected(name, value):
    found = objection(WEIGHTS, START, PROBE, NUMBERS | {name: value})
    assert found == f"{name} negative or not finite"


@pytest.mark.parametrize("norm", [1e-4, 1e4, inf])
def test_a_norm_far_from_the_others_in_either_direction_is_left_out(norm):
    found = outliers(ALIKE | {"odd": norm}, AdmissionConfig())
    assert list(found) == ["odd"]
    assert f"norm {norm:.3g}" in found["odd"]


def test_norms_that_differ_as_norms_do_are_kept():
    assert outliers(ALIKE, AdmissionConfig()) == {}


def test_the_limit_is_counted_in_robust_deviations_of_log_norms():
    # Log norms -4 … 4 times 0.2: median 0, median deviation 0.4.
    norms = {f"s{i}": exp(0.2 * i) for i in range(-4, 5)}
    deviation = 1.4826 * 0.4
    config = AdmissionConfig(deviations=0.7 / deviation)
    assert set(outliers(norms, config)) == {"s-4", "s4"}


def test_among_nearly_equal_norms_small_differences_are_no_outliers():
    norms = {f"s{i}": 1.0 for i in range(10)} | {"a": 1.3, "b": 3.0}
    assert set(outliers(norms, AdmissionConfig())) == {"b"}


def test_a_few_norms_are_not_compared():
    few = {f"s{i}": 1.0 for i in range(6)} | {"odd": 1e9}
    assert outliers(few, AdmissionConfig()) == {}
    assert set(outliers(few | {"s7": 1.0}, AdmissionConfig())) == {"odd"}


@settings(deadline=None, max_examples=60)
@given(
    norms=st.dictionaries(st.text(max_size=3), st.floats(1e-6, 1e6), min_size=6, max_size=14),
    data=st.data(),
)
def test_the_order_in_which_updates_came_does_not_matter(norms, data):
    order = data.draw(st.permutations(list(norms)))
    config = AdmissionConfig(deviations=1.5)
    assert outliers({site: norms[site] for site in order}, config) == outliers(norms, config)


@pytest.mark.parametrize("name", ["deviations", "minimum", "floor"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=name):
        AdmissionConfig(**{name: 0})
