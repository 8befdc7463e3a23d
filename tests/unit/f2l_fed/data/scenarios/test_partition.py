"""The division of a pool among sites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.core.random_streams import stream
from f2l_fed.data import (
    SCENARIOS,
    Dataset,
    Partition,
    SplitConfig,
    load_dataset,
    partition,
)
from f2l_fed.data.dataset import as_dataset
from f2l_fed.data.scenarios.pool import Pool, merge_datasets
from f2l_fed.data.scenarios.site_plan import ScenarioPlan
from f2l_fed.errors import DataError, UsageError
from tests.support.partitions import SMALL, all_sites


def made(
    name: str = "made", classes: int = 6, per_class: int = 40, shape: tuple[int, ...] = (1, 4, 4)
) -> Dataset:
    """Random examples; every fourth of a class's examples is of the same one of four groups."""
    rng = stream(0, name)
    y = np.repeat(np.arange(classes), per_class)
    groups = np.tile(np.arange(per_class) % 4, classes)
    return as_dataset(name, rng.random((len(y), *shape)), y, groups)


def few_sites(scenario: str) -> int:
    return 9 if scenario.startswith("changing") else 3


def planned(scenario: str, pool: Pool, **changes) -> ScenarioPlan:
    arguments = {"sites": few_sites(scenario), "held_out": 2, "seed": 0, "config": SMALL} | changes
    return SCENARIOS[scenario](pool, **arguments)


def split(scenario: str, *datasets: Dataset, **changes) -> Partition:
    arguments = {"sites": few_sites(scenario), "held_out": 2, "seed": 0, "config": SMALL} | changes
    return partition(scenario, datasets or (made(),), **arguments)


def every_byte(part: Partition) -> bytes:
    arrays = [(s.x_train, s.y_train, s.x_test, s.y_test) for s in all_sites(part)]
    return b"".join(np.ascontiguousarray(a).tobytes() for site in arrays for a in site)


def rows_of(sites) -> set[int]:
    return {int(row) for site in sites for row in (*site.train, *site.test)}


@settings(max_examples=40, deadline=None)
@given(
    scenario=st.sampled_from(sorted(SCENARIOS)),
    seed=st.integers(0, 1000),
    sites=st.integers(1, 12),
    fraction=st.floats(0.05, 0.8),
)
def test_no_example_is_on_both_sides_or_twice_at_one_site(scenario, seed, sites, fraction):
    pool = merge_datasets([made(classes=10)])
    config = replace(SMALL, held_out_fraction=fraction, dirichlet_alpha=1.0)
    try:
        plan = planned(scenario, pool, sites=sites, seed=seed, config=config)
    except DataError:
        # So few training examples for so many sites that the draw was, rightly, given up.
        assert scenario == "dirichlet" or (scenario.startswith("changing") and sites < 9)
        return
    changed = [change.site for change in plan.changes]
    sites_last = list({site.name: site for site in (*plan.training, *changed)}.values())
    training = rows_of(sites_last)
    assert not training & rows_of(plan.seen)
    assert not training & rows_of(plan.unseen or ())
    assert not {int(r) for s in sites_last for r in s.train} & {
        int(r) for s in sites_last for r in s.test
    }
    for site in (*plan.training, *changed, *plan.seen, *(plan.unseen or ())):
        rows = np.concatenate([site.train, site.test])
        assert len(np.unique(rows)) == len(rows)
        assert set(pool.y[rows].tolist()) <= set(site.classes)
    total = sum(len(site.train) + len(site.test) for site in sites_last)
    assert plan.disjoint == (len(training) == total)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_the_seed_decides_everything(scenario):
    assert every_byte(split(scenario)) == every_byte(split(scenario))
    assert every_byte(split(scenario)) != every_byte(split(scenario, seed=1))


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_sites_have_names_labels_in_range_and_two_classes(scenario):
    part = split(scenario)
    assert [site.name for site in part.sites] == [
        f"site-{number:03d}" for number in range(len(part.sites))
    ]
    assert [site.name for site in part.held_out["seen"]] == ["seen-000", "seen-001"]
    assert (part.scenario, part.pool, part.input_shape) == (scenario, ("made",), (1, 4, 4))
    for site in all_sites(part):
        assert site.x_train.dtype == site.x_test.dtype == np.float32
        assert site.y_train.dtype == site.y_test.dtype == np.int64
        assert len(site.x_train) == len(site.y_train)
        assert len(site.x_test) == len(site.y_test) > 0
        assert len(np.unique(site.y_train)) >= 2
        assert {*site.y_train.tolist(), *site.y_test.tolist()} <= set(range(part.classes))
        assert len(site.classes) == part.classes or scenario == "changing-few-shot"


def test_few_shot_sites_have_the_shots_they_were_promised():
    part = split("few-shot", made(classes=10))
    assert (part.classes, part.shared_labels) == (3, False)
    for site in part.sites:
        assert np.bincount(site.y_train).tolist() == [4] * 3
        assert np.bincount(site.y_test).tolist() == [2] * 3
    for site in (*part.held_out["seen"], *part.held_out["unseen"]):
        assert np.bincount(site.y_train).tolist() == [2] * 3
        assert np.bincount(site.y_test).tolist() == [3] * 3


def test_unseen_classes_are_at_no_training_site():
    part = split("few-shot", made(classes=12), sites=20, held_out=5)
    trained = {label for site in part.sites for label in site.classes}
    unseen = {label for site in part.held_out["unseen"] for label in site.classes}
    assert len(trained) == 9
    assert unseen == set(range(12)) - trained
    assert {label for site in part.held_out["seen"] for label in site.classes} <= trained


def test_ten_classes_leave_none_to_spare_for_unseen_ones():
    part = split("few-shot", load_dataset("digits"), config=SplitConfig(), sites=20)
    assert part.held_out["unseen"] is None
    assert {label for site in part.sites for label in site.classes} == set(range(10))


def test_label_order_and_camera_are_a_few_shot_sites_own():
    data = made(classes=3)
    pool = merge_datasets([data])
    config = replace(SMALL, unseen_fraction=0.0)
    part = split("few-shot", data, sites=12, config=config)
    plan = planned("few-shot", pool, sites=12, config=config)
    assert len({site.classes for site in part.sites}) > 3
    assert len({site.camera for site in plan.training}) > 3
    for site, rows in zip(part.sites, plan.training, strict=True):
        assert np.array_equal(site.x_train, rows.camera(pool.x[rows.train]))
        assert [site.classes[label] for label in site.y_train] == pool.y[rows.train].tolist()


def test_few_shot_sites_share_examples_only_after_the_pool_is_used_up():
    config = replace(SMALL, ways=2, unseen_fraction=0.0)
    data = made(classes=2, per_class=29)
    # 29 examples, 9 for held-out sites, leave 14 to train on and 6 to validate on.
    assert split("few-shot", data, sites=3, config=config).disjoint
    assert not split("few-shot", data, sites=4, config=config).disjoint
    pool = merge_datasets([data])
    used = rows_of(planned("few-shot", pool, sites=4, config=config).training)
    assert len(used) == 2 * 20


def test_earlier_sites_and_held_out_sites_dont_depend_on_later_sites():
    few, many = split("few-shot", made(classes=10)), split("few-shot", made(classes=10), sites=9)
    shortened = replace(many, sites=many.sites[:3])
    assert every_byte(few) == every_byte(shortened)


def test_a_duplicate_in_a_users_file_cant_reach_both_sides():
    data = made(classes=3)
    doubled = as_dataset("doubled", np.concatenate([data.x, data.x]), np.concatenate([data.y] * 2))
    assert len(merge_datasets([doubled]).x) == len(data.x)
    config = replace(SMALL, unseen_fraction=0.0)
    plain = replace(data, name="doubled")
    assert every_byte(split("few-shot", doubled, config=config)) == every_byte(
        split("few-shot", plain, config=config)
    )


def test_dirichlet_sites_divide_all_training_images_with_skew_and_test_on_a_quarter():
    data = made(classes=5, per_class=400)
    part = split("dirichlet", data, sites=20, held_out=10, config=SplitConfig())
    assert (part.classes, part.shared_labels, part.disjoint) == (5, True, True)
    assert part.held_out["unseen"] is None
    assert sum(len(s.y_train) + len(s.y_test) for s in part.sites) == 5 * 280
    tested = sum(len(s.y_test) for s in part.sites)
    assert 0.2 < tested / (5 * 280) <= 0.25
    largest = [np.bincount(s.y_train).max() / len(s.y_train) for s in part.sites]
    assert np.mean(largest) > 0.5
    for site in part.held_out["seen"]:
        assert len(site.y_train) <= 6 * 5
        assert len(site.y_test) > len(site.y_train)


def test_a_larger_alpha_means_less_skew():
    def share(alpha: float) -> float:
        config = SplitConfig(dirichlet_alpha=alpha)
        part = split("dirichlet", made(classes=5, per_class=400), sites=10, config=config)
        return float(np.mean([np.bincount(s.y_train).max() / len(s.y_train) for s in part.sites]))

    assert share(0.1) > share(1.0) > share(100.0)


def test_camera_sites_share_labels_but_not_what_they_see():
    data = made(shape=(1, 8, 8))
    part, plan = split("camera", data), planned("camera", merge_datasets([data]))
    assert (part.classes, part.shared_labels, part.held_out["unseen"]) == (6, True, None)
    assert all(site.classes == tuple(range(6)) for site in all_sites(part))
    assert all(np.bincount(site.y_train).tolist() == [4] * 6 for site in part.sites)
    assert len({site.camera for site in (*plan.training, *plan.seen)}) == 5


def test_natural_sites_are_groups():
    data = made()
    pool = merge_datasets([data])
    plan = planned("natural", pool, sites=9, held_out=1)
    assert len(plan.training) == 3
    groups = [
        set(pool.groups[np.concatenate([site.train, site.test])].tolist())
        for site in (*plan.training, *plan.seen)
    ]
    assert sorted(groups, key=min) == [{0}, {1}, {2}, {3}]
    assert len(planned("natural", pool, sites=2, held_out=1).training) == 2
    assert planned("natural", pool).shared_labels


def test_groups_too_small_to_learn_from_are_left_out():
    data = made()
    lonely = data.groups.copy()
    lonely[:3] = 9
    part = split("natural", replace(data, groups=lonely), sites=9, held_out=1)
    assert len(part.sites) == 3


def test_vectors_are_standardised_by_what_training_sites_train_on():
    data = made(shape=(5,))
    scaled = replace(data, x=data.x * np.float32([1, 100, 0.01, 1, 0]) + 7)
    for scenario in ("few-shot", "dirichlet", "natural"):
        part = split(scenario, scaled, config=replace(SMALL, dirichlet_alpha=1.0))
        unique = np.unique(np.concatenate([site.x_train for site in part.sites]), axis=0)
        np.testing.assert_allclose(unique.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(unique.std(axis=0), [1, 1, 1, 1, 0], atol=1e-2)
        assert part.input_shape == (5,)
        assert all(np.isfinite(site.x_test).all() for site in all_sites(part))


@pytest.mark.parametrize("value", [0.1, 5.1, 98.6])
def test_a_feature_that_varies_by_rounding_alone_is_not_blown_up(value):
    data = made(shape=(5,))
    x = data.x.copy()
    x[:, 0] = value
    part = split("dirichlet", replace(data, x=x), config=replace(SMALL, dirichlet_alpha=1.0))
    assert all(np.abs(site.x_train[:, 0]).max() < 1e-4 for site in part.sites)


@pytest.mark.parametrize(
    ("scenario", "data", "changes", "sentence"),
    [
        ("few-shot", made(classes=2), {}, r"too few classes .* at least 3 \(ways\), got 2"),
        (
            "few-shot",
            made(classes=6),
            {"config": replace(SMALL, unseen_fraction=0.9)},
            r"left for training sites: expected at least 3 \(ways\), got 1 of 6",
        ),
        (
            "few-shot",
            made(per_class=10),
            {},
            r"made, class \d: .* at least 11 \(4 shots \+ .* got 10",
        ),
        ("camera", made(per_class=10), {}, r"made, class 0: there are too few examples"),
        ("camera", made(shape=(5,)), {}, "needs images: .* got vectors of 5 features"),
        (
            "changing",
            made(shape=(1, 8, 8)),
            {"sites": 3},
            "too few training sites .* at least 9, got 3",
        ),
        ("changing", made(classes=4, shape=(1, 8, 8)), {"sites": 9}, "too few classes .* least 5"),
        ("changing-few-shot", made(shape=(5,)), {"sites": 9}, "needs images: .* 5 features"),
        ("dirichlet", made(per_class=5), {"sites": 50}, "at least 400 for 50 training sites, got"),
        ("dirichlet", made(classes=2), {"sites": 6}, "two classes of four examples, in each of"),
        ("natural", replace(made(), groups=None), {}, "Add an array named groups"),
        ("natural", made(), {"held_out": 4}, r"at least 5 \(4 held out \+ 1 .*got 4 of 4"),
    ],
)
def test_data_that_dont_suffice_are_answered_with_numbers_and_a_remedy(
    scenario, data, changes, sentence
):
    with pytest.raises(DataError, match=sentence) as caught:
        split(scenario, data, **changes)
    assert caught.value.exit_code == 2
    assert caught.value.remedy.endswith(".")


def test_the_smallest_class_that_suffices_is_accepted():
    config = replace(SMALL, unseen_fraction=0.0, held_out_fraction=0.9)
    part = split("few-shot", made(per_class=11), config=config, sites=1)
    assert [len(site.y_train) for site in all_sites(part)] == [12, 6, 6]


@pytest.mark.parametrize("changes", [{"sites": 0}, {"held_out": 0}, {"sites": -3}])
def test_counts_must_be_positive(changes):
    with pytest.raises(UsageError, match=r"(sites|held_out) is not positive") as caught:
        split("few-shot", **changes)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "setting",
    [
        {"ways": 1},
        {"shots": 0},
        {"test_per_class": -1},
        {"validation_per_class": 0},
        {"held_out_fraction": 1.0},
        {"held_out_fraction": 0.0},
        {"unseen_fraction": 1.0},
        {"unseen_fraction": float("nan")},
        {"dirichlet_alpha": 0.0},
        {"dirichlet_alpha": float("inf")},
    ],
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        SplitConfig(**setting)


def test_a_misspelt_scenario_is_answered_with_the_nearest_one():
    with pytest.raises(UsageError, match="Did you mean 'few-shot'"):
        split("fewshot")


@pytest.mark.parametrize("scenario", ["natural", "dirichlet"])
def test_sites_of_two_classes_have_enough_examples_to_take_part(scenario):
    # Five shots of two classes would be ten examples, of which a site keeps two aside.
    data = made(classes=2, per_class=120, shape=(5,))
    config = SplitConfig(dirichlet_alpha=10)
    part = split(scenario, data, sites=3, held_out=1, config=config)
    assert min(len(site.y_train) for site in all_sites(part)) >= config.minimum_examples
    assert min(len(site.y_test) for site in all_sites(part)) >= 2
    assert part.notes == ()


def test_sites_without_enough_examples_are_left_out_and_counted():
    config = SplitConfig(dirichlet_alpha=1, held_out_shots=40, minimum_examples=22)
    data = made(shape=(5,))
    every = split("dirichlet", data, sites=6, config=replace(config, minimum_examples=1))
    part = split("dirichlet", data, sites=6, config=config)
    able = [site.name for site in every.sites if len(site.y_train) >= 22]
    assert [site.name for site in part.sites] == able
    assert 0 < len(able) < 6
    assert part.notes[0].startswith(f"{6 - len(able)} of 6 training sites have fewer than 22")


def test_a_site_keeps_a_fifth_of_every_class_aside():
    config = SplitConfig(ways=3, shots=10, held_out_shots=5, test_per_class=3)
    part = split("few-shot", made(per_class=40), config=config)
    for sites, kept, aside in ((part.sites, 8, 2), (part.held_out["seen"], 4, 3)):
        for site in sites:
            assert np.bincount(site.y_train).tolist() == [kept] * 3
            assert np.bincount(site.y_test).tolist() == [aside] * 3
