"""A site's context and its own network on a body."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.core.random_streams import generator_for
from f2l_fed.local_training.adapted_network import (
    adapted_head,
    adapted_network,
    class_means_head,
    head_pairs,
    site_context,
)
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.local_training.logistic_head import logistic_head, rows
from f2l_fed.local_training.turns import turned
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body

BODY = Body.of(build_target("cnn-xs", (1, 8, 8), 3))
WEIGHTS = BODY.initialise(torch.Generator().manual_seed(0))
CONFIG, EPISODES = HeadConfig(pairs=10), EpisodesConfig()


def examples(count=30):
    y = torch.arange(count) % 3
    rng = torch.Generator().manual_seed(1)
    x = (torch.rand(count, 1, 8, 8, generator=rng) + y[:, None, None, None] / 2) / 2
    return x, y


def draws(pair):
    return generator_for("lin", "site", "probe", pair)


def pairs(config=CONFIG):
    return head_pairs(BODY, WEIGHTS, *examples(), config, EPISODES, 4, draws)


def test_there_is_a_head_on_few_and_one_on_all_for_every_turn():
    found = pairs()
    size = BODY.head.layout.size
    assert found.few.shape == found.all.shape == (10, size)
    # After eight turns the first comes again, with other examples.
    assert torch.equal(found.all[8], found.all[0])
    assert not torch.equal(found.few[8], found.few[0])
    x, y = examples()
    features = BODY.features(WEIGHTS, turned(x, 1, False))
    one = logistic_head(features, y, 3, strength=CONFIG.target)
    torch.testing.assert_close(found.all[1], one, atol=1e-3, rtol=1e-2)


def test_a_site_s_context_is_a_head_on_all_of_its_examples():
    x, y = examples()
    alone = adapted_head(BODY, WEIGHTS, None, x, y, CONFIG)
    assert torch.equal(site_context(BODY, WEIGHTS, x, y, CONFIG), alone)


def test_the_pull_holds_a_head_of_few_examples_and_gives_way_to_many():
    x, y = examples()
    generated = torch.full((BODY.head.layout.size,), 0.1)
    strong = HeadConfig(pull=1e6)
    torch.testing.assert_close(
        adapted_head(BODY, WEIGHTS, generated, x, y, strong), generated, atol=1e-3, rtol=0
    )
    near, far = (
        float((adapted_head(BODY, WEIGHTS, generated, x[:n], y[:n], CONFIG) - generated).norm())
        for n in (6, 30)
    )
    assert near < far


def test_without_a_generated_head_it_is_that_of_a_context_on_all_examples():
    x, y = examples()
    features = BODY.features(WEIGHTS, x)
    torch.testing.assert_close(
        adapted_head(BODY, WEIGHTS, None, x, y, CONFIG),
        logistic_head(features, y, 3, strength=CONFIG.context / len(y)),
    )


@pytest.mark.parametrize("steps", [0, 5])
def test_the_steps_are_held_at_their_start(steps):
    x, y = examples()
    head = adapted_head(BODY, WEIGHTS, None, x, y, CONFIG)
    start = BODY.join(WEIGHTS, head)

    def moved(step_pull):
        config, recipe = HeadConfig(step_pull=step_pull), Recipe(steps=steps, lr=0.02)
        rng = torch.Generator()
        made = adapted_network(BODY, WEIGHTS, head, x, y, config, recipe, rng)
        return float((made - start).norm())

    assert moved(0) == 0 if steps == 0 else moved(200) < moved(0)


def test_the_nearest_class_mean_is_what_its_head_says():
    x, y = examples()
    x, y = x[y < 2], y[y < 2]
    head = rows(class_means_head(BODY, WEIGHTS, x, y), 3)
    z = BODY.features(WEIGHTS, x)
    means = torch.stack([z[y == k].mean(0) for k in range(2)])
    said = (z @ head[:, :-1].T + head[:, -1]).argmax(1)
    assert torch.equal(said, torch.cdist(z, means).argmin(1))


def test_steps_that_only_harm_are_not_taken():
    x, y = examples()
    head = adapted_head(BODY, WEIGHTS, None, x, y, CONFIG)
    wild = Recipe(steps=20, lr=50.0, max_gradient_norm=0)
    made = adapted_network(BODY, WEIGHTS, head, x, y, CONFIG, wild, torch.Generator())
    assert torch.equal(made, BODY.join(WEIGHTS, head))
