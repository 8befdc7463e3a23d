"""All baselines: names, determinism, equal work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import ARMS, BASELINE_ARMS, description, label
from f2l_fed.evaluation.baselines.baseline import curves
from f2l_fed.evaluation.baselines.registry import BASELINES
from f2l_fed.local_training.finetune import accuracy_after
from f2l_fed.targets.head_rows import with_classes
from tests.support.baselines import small_held_out, small_work
from tests.support.small import rng

ALL = sorted(BASELINES)


def test_every_baseline_and_arm_has_a_name_of_its_own():
    keys = [arm for baseline in BASELINES.values() for arm in baseline.arms]
    assert keys == [arm.key for arm in BASELINE_ARMS]
    assert not set(keys) & {arm.key for arm in ARMS}
    assert all(key == baseline.key for key, baseline in BASELINES.items())
    labels = [label(arm.key) for arm in (*ARMS, *BASELINE_ARMS)]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 13
    assert all(description(key) for key in keys)


@pytest.mark.parametrize("key", ALL)
def test_a_baseline_learns_the_same_twice_and_something_else_from_another_seed(key):
    work, baseline = small_work(rounds=1), BASELINES[key]
    learnt = baseline.train(work, baseline.settings)
    assert torch.equal(learnt, baseline.train(work, baseline.settings))
    other = baseline.train(replace(work, lineage="small/1"), baseline.settings)
    assert not torch.equal(learnt, other)


@pytest.mark.parametrize("key", ALL)
def test_every_arm_is_measured_with_its_own_learning_rate_and_the_common_steps(key):
    work, site, baseline = small_work(rounds=1), small_held_out(), BASELINES[key]
    rates = dict.fromkeys(baseline.arms, 0.02)
    settings = replace(baseline.settings, local_lr=rates)
    learnt = baseline.train(work, settings)
    starts = baseline.starts(work, settings, learnt, site)
    found = curves(replace(baseline, settings=settings), work, starts, site, (0, 3))
    assert tuple(found) == baseline.arms
    for arm, start in starts.items():
        assert found[arm] == accuracy_after(
            work.network,
            start.weights,
            site.train,
            site.test,
            replace(work.local, lr=0.02),
            generator_for("small/0", site.name, "local"),
            (0, 3),
            pull=start.pull,
        )


@pytest.mark.parametrize("key", ALL)
def test_a_site_with_fewer_classes_gets_a_network_for_its_own(key):
    work, whole, baseline = small_work(rounds=1), small_held_out(), BASELINES[key]
    few = replace(whole, train=two(whole.train), test=two(whole.test))
    learnt = baseline.train(work, baseline.settings)
    for site, classes in ((few, 2), (whole, 3)):
        starts = baseline.starts(work, baseline.settings, learnt, site)
        network = with_classes(work.body, classes).network
        assert {len(one.weights) for one in starts.values()} == {network.layout.size}
        found = curves(baseline, work, starts, site, (0, 3))
        assert all(0 <= accuracy <= 1 for row in found.values() for accuracy in row)
    # Where labels are shared, a site that lacks some classes has an output for each.
    starts = baseline.starts(replace(work, shared_labels=True), baseline.settings, learnt, few)
    assert {len(one.weights) for one in starts.values()} == {work.network.layout.size}


def two(examples):
    """Those of the first two classes."""
    x, y = examples
    return x[y < 2], y[y < 2]


@pytest.mark.parametrize("key", [key for key in ALL if key != "alone_to_end"])
def test_a_site_with_one_class_disturbs_no_training(key):
    work, baseline = small_work(sites=2, rounds=1), BASELINES[key]
    single = replace(work.sites[0], y=torch.zeros_like(work.sites[0].y))
    work = replace(work, sites=(single, *work.sites[1:]))
    assert bool(baseline.train(work, baseline.settings).isfinite().all())


@pytest.mark.parametrize("key", [key for key in ALL if key != "alone_to_end"])
def test_turns_and_inversion_are_those_of_the_episodes_where_a_baseline_wants_them(key):
    from f2l_fed.targets import build_target
    from f2l_fed.targets.body import Body

    vectors = small_work(sites=1, rounds=1)
    site = vectors.sites[0]
    image = torch.rand(len(site.y), 1, 8, 8, generator=rng())
    work = replace(
        vectors,
        body=Body.of(build_target("mlp", (1, 8, 8), 3)),
        sites=(replace(site, x=image),),
    )
    plain = replace(work, episodes=replace(work.episodes, turns=False, inversion=False))
    baseline = BASELINES[key]
    turning, still = (replace(baseline.settings, turns=turns) for turns in (True, False))
    learnt = baseline.train(plain, turning)
    assert not torch.equal(learnt, baseline.train(work, turning))
    assert torch.equal(learnt, baseline.train(work, still))
