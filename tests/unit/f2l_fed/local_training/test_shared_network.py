"""A shared network at a site: its label mix, the passes that are returned, and its own network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from f2l_fed.local_training.config import Recipe, SharedConfig
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.shared_network import (
    SharingSite,
    few_examples,
    label_shift,
    shifted,
)
from f2l_fed.targets import Target
from tests.support.small import examples, rng, small_target

TARGET = small_target()
CONFIG = SharedConfig(lr=0.05)


def site(count=60, keep=None, config=CONFIG):
    """A site with all classes, or with few of the examples of all classes but one."""
    x, y = examples(TARGET, count, seed=3)
    if keep is not None:
        rows = torch.cat([(y == 0).nonzero()[:, 0], (y != 0).nonzero()[:keep, 0]])
        x, y = x[rows], y[rows]
    return SharingSite(target=TARGET, x=x, y=y, config=config)


def start(seed=1):
    return TARGET.initialise(rng(seed))


def bias(weights):
    return TARGET.layout.unflatten(weights)[TARGET.output_bias]


def test_the_shift_is_the_log_of_smoothed_frequencies_and_at_most_zero():
    y = torch.tensor([0, 0, 0, 2])
    found = label_shift(y, 4, 0.5)
    frequencies = torch.tensor([3.5, 0.5, 1.5, 0.5]) / 6
    torch.testing.assert_close(found, frequencies.log() - frequencies.log().max())
    assert float(found.max()) == 0


def test_a_shift_moves_the_output_bias_alone_and_is_taken_off_again():
    weights, shift = start(), torch.tensor([0.0, -1.0, -2.0])
    moved = shifted(TARGET, weights, shift)
    torch.testing.assert_close(bias(moved), bias(weights) + shift)
    assert int((moved != weights).sum()) == 2
    torch.testing.assert_close(shifted(TARGET, moved, -shift), weights)


def test_a_network_without_an_output_bias_has_no_shift():
    bare = Target.of("bare", lambda: nn.Linear(4, 3, bias=False), (4,), 3)
    weights = bare.initialise(rng())
    assert torch.equal(shifted(bare, weights, torch.ones(3)), weights)


def test_few_examples_keep_the_label_mix():
    y = torch.cat([torch.zeros(900, dtype=torch.int64), torch.ones(100, dtype=torch.int64)])
    few = few_examples(y, 100, rng())
    assert len(few.unique()) == 100
    assert 80 <= int((y[few] == 0).sum()) <= 98
    assert torch.equal(few_examples(y[:7], 100, rng()), torch.arange(7))


def test_an_update_is_trained_with_the_label_mix_and_leaves_without_it():
    one, first = site(keep=4), start()
    made = one.update(first, rng())
    shift = one.shift
    recipe = CONFIG.update_recipe(len(one.y))
    trained = finetune(TARGET, shifted(TARGET, first, shift), one.x, one.y, recipe, rng())
    torch.testing.assert_close(shifted(TARGET, made, shift), trained)
    # The bias need not say what is frequent: the shift has said it.
    plain = finetune(TARGET, first, one.x, one.y, recipe, rng())
    moved, moved_plain = (bias(w) - bias(first) for w in (made, plain))
    assert float(moved.norm()) < float(moved_plain.norm())


def test_passes_cover_the_examples_up_to_a_limit():
    assert CONFIG.update_recipe(95).steps == 10
    assert SharedConfig(epochs=3).update_recipe(95).steps == 30
    assert SharedConfig(most_steps=12, epochs=3).update_recipe(95).steps == 12


@pytest.mark.parametrize(
    ("release", "epochs", "lr"), [("", 5, 0.2), ("00005", 5, 0.2), ("00006", 2, 0.2)]
)
def test_a_sites_own_network_has_more_passes_in_early_rounds(release, epochs, lr):
    recipe = SharedConfig().own_recipe(40, release)
    assert (recipe.steps, recipe.lr) == (4 * epochs, lr)


def test_the_start_is_the_midpoint_of_the_shared_network_and_the_last_update():
    one, shared, returned = site(keep=4), start(1), start(2)
    kind, found = one.start({"prior": shared}, returned)
    middle = (shared + returned) / 2
    torch.testing.assert_close(found, shifted(TARGET, middle, one.shift))
    assert kind == "prior"
    _, alone = one.start({"prior": shared}, None)
    torch.testing.assert_close(alone, shifted(TARGET, shared, one.shift))


def test_of_several_shared_networks_the_one_with_the_lowest_loss_counts():
    one = site()
    good = finetune(TARGET, start(), one.x, one.y, Recipe(steps=50, lr=0.1), rng())
    kind, found = one.start({"prior": start(5), "global_mean": good}, None)
    assert kind == "global_mean"
    torch.testing.assert_close(found, shifted(TARGET, good, one.shift))


def test_the_learning_rate_of_the_own_network_falls_to_zero():
    one, first = site(), start()
    recipe = Recipe(steps=2, lr=0.1, momentum=0.0, batch=0)
    made = one.own_network(first, recipe, rng())
    halved = [
        Recipe(steps=1, lr=0.1, momentum=0.0),
        Recipe(steps=1, lr=0.05, momentum=0.0),
    ]
    expected = first
    for step in halved:
        expected = finetune(TARGET, expected, one.x, one.y, step, rng())
    torch.testing.assert_close(made, expected)


def test_the_label_mix_is_worth_much_where_labels_are_skewed():
    one = site(count=300, keep=6)
    everywhere = site(300)
    shared = finetune(TARGET, start(), everywhere.x, everywhere.y, Recipe(steps=30, lr=0.05), rng())
    plain = loss_and_accuracy(TARGET, shared, one.x, one.y)
    mixed = loss_and_accuracy(TARGET, one.start({"prior": shared}, None)[1], one.x, one.y)
    assert mixed[0] < plain[0]
