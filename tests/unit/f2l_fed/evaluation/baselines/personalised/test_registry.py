"""All baselines for shared labels: what holds for each of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.evaluation.arm_names import (
    ARMS,
    BASELINE_ARMS,
    PERSONALISED_ARMS,
    THIS_FEDERATION,
)
from f2l_fed.evaluation.baselines.personalised.accuracy import (
    PersonalisedAccuracy,
    personalised_accuracy,
)
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.local_only import LOCAL_ONLY
from f2l_fed.evaluation.baselines.personalised.method import cost_of_baseline
from f2l_fed.evaluation.baselines.personalised.own_networks import own_networks
from f2l_fed.evaluation.baselines.personalised.registry import PERSONALISED_BASELINES
from tests.support.personalised import networks_of, small_examples, small_personalised_work

KEYS = tuple(PERSONALISED_BASELINES)


def test_keys_and_labels_are_distinct_and_fit_a_table():
    assert [baseline.key for baseline in PERSONALISED_BASELINES.values()] == list(KEYS)
    assert [arm.key for arm in PERSONALISED_ARMS] == [THIS_FEDERATION, *KEYS]
    labels = [arm.label for arm in PERSONALISED_ARMS]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 13
    assert not set(KEYS) & {arm.key for arm in (*ARMS, *BASELINE_ARMS)}


@pytest.mark.parametrize("key", KEYS)
def test_its_sites_get_better_networks_than_they_began_with(key):
    work = small_personalised_work(rounds=6)
    tests = [small_examples(number, 300) for number in range(5)]
    begun = personalised_accuracy(work.network, work.starts, tests)
    found = dict(own_networks(PERSONALISED_BASELINES[key], work))
    ended = personalised_accuracy(work.network, found[6], tests)
    assert begun.weighted < 0.5
    assert ended.weighted > 0.7


@pytest.mark.parametrize("key", KEYS)
def test_only_measured_rounds_are_told_and_measuring_changes_nothing(key):
    baseline, work = PERSONALISED_BASELINES[key], small_personalised_work(rounds=3)
    some = dict(own_networks(baseline, replace(work, measured=(1, 3))))
    assert list(some) == [1, 3]
    whole = dict(own_networks(baseline, work))
    assert torch.equal(whole[3], some[3])
    assert not torch.equal(whole[1], whole[3])


def test_local_training_alone_goes_on_from_round_to_round():
    work, own = small_personalised_work(rounds=2), small_personalised_work().starts
    for number in (1, 2):
        own = descend_side_by_side(work, own, 0.2, "local_only", number)
    assert torch.equal(networks_of(LOCAL_ONLY, work, lr=0.2), own)


def test_own_epochs_come_after_a_round_and_fall_to_zero():
    work = small_personalised_work(rounds=1)
    finished = replace(LOCAL_ONLY, settings=replace(LOCAL_ONLY.settings, epochs=3, own_lr=0.1))
    ((_, found),) = own_networks(finished, work)
    begun = networks_of(LOCAL_ONLY, work)
    expected = descend_side_by_side(work, begun, 0.1, "own", 1, epochs=3, falling=True)
    assert torch.equal(found, expected)


def test_costs_count_what_is_sent_and_every_kind_of_step():
    work = small_personalised_work()
    costs = {
        key: cost_of_baseline(baseline, work) for key, baseline in PERSONALISED_BASELINES.items()
    }
    whole = 4 * work.network.layout.size
    assert costs["local_only"].bytes_up == costs["local_only"].bytes_down == 0
    assert costs["plain_fedavg"].bytes_up == costs["ditto"].bytes_down == whole
    assert 0 < costs["fedper"].bytes_up == costs["fedrep"].bytes_up < whole
    # 150 examples at five sites are 3 minibatches of 10 each.
    assert (costs["plain_fedavg"].steps, costs["ditto"].steps) == (3, 6)
    assert (costs["plain_fedavg"].own_steps, costs["fedavg_epochs"].own_steps) == (0, 15)


def test_the_weighted_mean_is_over_test_examples_and_the_plain_one_over_sites():
    found = PersonalisedAccuracy(sites=(0.9, 0.5), examples=(30, 10))
    assert found.weighted == pytest.approx(0.8)
    assert found.plain == pytest.approx(0.7)


def test_accuracy_is_each_site_s_own_network_on_its_own_examples():
    work = small_personalised_work()
    tests = [small_examples(number, 40 + number) for number in range(5)]
    found = personalised_accuracy(work.network, work.starts, tests)
    # All outputs of the start are equal, and the first of them counts.
    assert found.sites == pytest.approx([float((y == 0).float().mean()) for _, y in tests])
    assert found.examples == (40, 41, 42, 43, 44)
