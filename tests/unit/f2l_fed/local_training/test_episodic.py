"""Episodic training of a body."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.episodic import draw_episode, episode_gradient, episode_loss, train_body
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from tests.support.devices import on_devices

BODY = Body.of(build_target("mlp", (6,), 3))
SMALL = EpisodesConfig(support=2, query=4)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(count=60):
    y = torch.arange(count) % 3
    x = torch.randn(count, 6, generator=rng(1)) * 1.5
    return x + 2 * torch.nn.functional.one_hot(y, 6), y


def test_support_and_queries_are_apart_and_every_class_is_in_both():
    _, y = examples()
    episode = draw_episode(y, 2, 4, rng())
    assert len(episode.support) == 6
    assert len(episode.query) == 12
    assert not set(episode.support.tolist()) & set(episode.query.tolist())
    assert torch.equal(y[episode.support], episode.support_labels)
    assert torch.equal(y[episode.query], episode.query_labels)


def test_classes_with_few_examples_are_divided_and_single_ones_left_out():
    y = torch.tensor([0] * 9 + [5] * 2 + [7])
    episode = draw_episode(y, 5, 10, rng())
    assert episode.support_labels.tolist() == [0, 0, 0, 1]
    assert episode.query_labels.tolist() == [0] * 6 + [1]
    assert 11 not in torch.cat([episode.support, episode.query]).tolist()


def test_training_lowers_the_loss_of_episodes_that_it_has_not_seen():
    x, y = examples()
    start = BODY.initialise(rng())
    trained = train_body(BODY, start, x, y, SMALL, 40, rng())

    def loss(weights):
        drawn = [draw_episode(y, 2, 4, rng(100 + seed)) for seed in range(30)]
        return sum(
            float(episode_loss(BODY, weights, x[torch.cat([e.support, e.query])], e)) for e in drawn
        )

    assert loss(trained) < 0.8 * loss(start)
    assert trained[-1] != start[-1]


def test_the_same_chance_gives_the_same_body_and_the_start_stays():
    x, y = examples()
    start = BODY.initialise(rng())
    kept = start.clone()
    one, other = (train_body(BODY, start, x, y, SMALL, 5, rng()) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(start, kept)
    assert torch.equal(train_body(BODY, start, x, y, SMALL, 0, rng()), start)


def test_a_site_that_can_form_no_episode_returns_the_start():
    start = BODY.initialise(rng())
    x, y = torch.randn(4, 6), torch.tensor([0, 0, 0, 1])
    assert torch.equal(train_body(BODY, start, x, y, SMALL, 3, rng()), start)


def test_labels_mean_nothing_to_an_episode():
    x, y = examples()
    order = torch.tensor([1, 2, 0])
    start = BODY.initialise(rng())
    episode = draw_episode(y, 2, 4, rng())
    chosen = x[torch.cat([episode.support, episode.query])]
    renamed = type(episode)(
        episode.support, order[episode.support_labels], episode.query, order[episode.query_labels]
    )
    torch.testing.assert_close(
        episode_loss(BODY, start, chosen, episode), episode_loss(BODY, start, chosen, renamed)
    )


@pytest.mark.parametrize("inversion", [False, True])
def test_an_episode_s_gradient_is_that_of_its_loss(inversion):
    body = Body.of(build_target("cnn-xs", (1, 8, 8), 3))
    x, y = torch.rand(60, 1, 8, 8, generator=rng()), torch.arange(60) % 3
    config = EpisodesConfig(support=2, query=4, turns=False, inversion=inversion)
    start = body.initialise(rng())
    gradient = episode_gradient(body, start, x, y, config, rng(3))
    chance = rng(3)
    episode = draw_episode(y, 2, 4, chance)
    chosen = x[torch.cat([episode.support, episode.query])]
    if inversion and int(torch.randint(2, (), generator=chance)):
        chosen = 1 - chosen
    theta = start.clone().requires_grad_()
    episode_loss(body, theta, chosen, episode).backward()
    torch.testing.assert_close(gradient, theta.grad)


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2], [0, 0, 2]])
def test_without_two_examples_of_two_classes_there_is_no_gradient(labels):
    x, y = torch.randn(len(labels), *BODY.network.input_shape), torch.tensor(labels).long()
    assert not episode_gradient(BODY, BODY.initialise(rng()), x, y, EpisodesConfig(), rng()).any()


@on_devices
def test_a_device_makes_the_body_of_the_cpu(device):
    x, y = examples()
    start = BODY.initialise(rng())
    made = train_body(BODY.to(device), start, x, y, SMALL, 10, rng())
    assert made.device == start.device
    wanted = train_body(BODY, start, x, y, SMALL, 10, rng())
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)
