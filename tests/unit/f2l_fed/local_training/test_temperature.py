"""The temperature of a site's network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from f2l_fed.local_training.config import LOSSES, TEMPERATURES, HeadConfig
from f2l_fed.local_training.probe import support_set
from f2l_fed.local_training.temperature import (
    fitted_temperature,
    left_out_losses,
    temperature_for,
)
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body

BODY = Body.of(build_target("mlp", (6,), 3))
WEIGHTS = BODY.initialise(torch.Generator().manual_seed(0))


def site(seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(60) % 3
    return torch.randn(60, 6, generator=rng) + 2 * functional.one_hot(y, 6), y


def told(true, seed, count=4000):
    """Losses of a network whose logits are ``true`` times what they should be."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 3, generator=rng)
    y = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
    return {
        name: float(functional.cross_entropy(true * logits / temperature, y))
        for name, temperature in zip(LOSSES, TEMPERATURES, strict=True)
    }


@pytest.mark.parametrize("true", [0.45, 0.6, 0.9])
def test_the_temperature_that_made_the_logits_wrong_is_found(true):
    numbers = [told(true, seed) for seed in range(8)]
    assert fitted_temperature(numbers) == pytest.approx(true, rel=0.05)


def test_two_liars_of_ten_do_not_move_it_far():
    numbers = [told(0.6, seed) for seed in range(8)]
    for size in (1.0, 1e6):
        lies = {name: size * index for index, name in enumerate(LOSSES)}
        found = fitted_temperature([*numbers, lies, lies])
        assert found == pytest.approx(0.6, rel=0.15)


def test_nobody_has_told_anything():
    assert fitted_temperature([{}, {"loss_before": 1.0}]) is None


def test_a_site_measures_on_the_examples_that_its_head_has_not_seen():
    x, y = site(1)
    generated = torch.zeros(BODY.head.layout.size)

    def losses(x):
        rng = torch.Generator().manual_seed(5)
        return left_out_losses(BODY, WEIGHTS, generated, x, y, HeadConfig(), 2, rng)

    found = losses(x)
    assert tuple(found) == LOSSES
    support = support_set(y, 2, torch.Generator().manual_seed(5))
    # Whatever the labels of the support say of other inputs, a far one changes only their loss.
    far = x.clone()
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[support] = False
    far[rest] = 0
    assert losses(far) != found
    nothing = left_out_losses(
        BODY, WEIGHTS, generated, x, y, HeadConfig(), 20, torch.Generator().manual_seed(5)
    )
    assert nothing == {}


def test_without_a_known_temperature_logits_stay():
    assert temperature_for((), 5) == 1
    assert temperature_for(((1, 0.4), (5, 0.5)), 2) == 0.4


def test_a_tempered_network_says_the_same_less_surely():
    x, _ = site(1)
    network = BODY.network.initialise(torch.Generator().manual_seed(1))
    cooled = BODY.tempered(network, 0.5)
    torch.testing.assert_close(BODY.network.logits(cooled, x), 2 * BODY.network.logits(network, x))
