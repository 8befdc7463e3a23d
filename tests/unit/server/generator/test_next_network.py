"""The next shared network: rows by how far they moved, the rest by examples, and further on."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.generator.config import AggregateConfig
from f2l_fed.local_training.config import SharedConfig
from server.generator.next_network import mean_change, next_networks, server_point
from tests.support.small import rng, small_target

TARGET = small_target()
SIZE = TARGET.layout.size
START = TARGET.initialise(rng(1))
PLAIN = SharedConfig(step=1.0, acceleration=0.0)


def changes(count, seed=0):
    return torch.randn(count, SIZE, generator=rng(seed))


def following(returned, examples, config=PLAIN, last=None, rule=None):
    rule = rule or AggregateConfig()
    return next_networks(TARGET, START, last, returned, torch.tensor(examples), rule, config)


def parts(weights):
    tensors = TARGET.layout.unflatten(weights)
    head = torch.cat([tensors[TARGET.output_weight], tensors[TARGET.output_bias][:, None]], dim=1)
    names = (TARGET.output_weight, TARGET.output_bias)
    hidden = torch.cat([t.reshape(-1) for name, t in tensors.items() if name not in names])
    return hidden, head


def test_everything_but_the_output_rows_is_averaged_by_examples():
    own = changes(3)
    found, _ = parts(mean_change(TARGET, own, torch.tensor([1.0, 2.0, 5.0])))
    hidden = torch.stack([parts(row)[0] for row in own])
    torch.testing.assert_close(found, (hidden[0] + 2 * hidden[1] + 5 * hidden[2]) / 8)


def test_an_output_row_counts_as_far_as_a_site_has_moved_it():
    own = changes(2)
    for row in own:
        for tensor in TARGET.layout.unflatten(row).values():
            tensor.zero_()
    first, second = (TARGET.layout.unflatten(row) for row in own)
    first[TARGET.output_weight][0] = 4.0
    second[TARGET.output_weight][1] = 2.0
    _, head = parts(mean_change(TARGET, own, torch.tensor([10.0, 10.0])))
    # Each row is that of the one site that moved it: no other site dilutes it.
    assert head[0, :-1].tolist() == [4.0] * (head.shape[1] - 1)
    assert head[1, :-1].tolist() == [2.0] * (head.shape[1] - 1)
    assert not head[2].any()


def test_equal_networks_are_the_average():
    row = START + changes(1)[0]
    found = following(torch.stack([row] * 4), [3.0, 40.0, 7.0, 1.0])
    torch.testing.assert_close(found.own, row)
    torch.testing.assert_close(found.next, row)


def test_sites_get_the_mean_and_start_again_further_on():
    row = START + changes(1)[0]
    last = TARGET.initialise(rng(2))
    config = SharedConfig(step=1.5, acceleration=0.5)
    found = following(torch.stack([row, row]), [5.0, 5.0], config, last)
    torch.testing.assert_close(found.own, row)
    point = START + 1.5 * (row - START)
    torch.testing.assert_close(found.next, point + 0.5 * (point - last))
    torch.testing.assert_close(server_point(START, found.own, config), point)
    first = following(torch.stack([row, row]), [5.0, 5.0], config)
    torch.testing.assert_close(first.next, point + 0.5 * (point - START))


def test_a_site_that_declares_too_many_examples_counts_like_five_others():
    returned = START + changes(9, seed=4)
    told = following(returned, [100.0] * 8 + [1e9])
    five = following(returned, [100.0] * 8 + [500.0])
    torch.testing.assert_close(told.own, five.own)


def test_a_long_change_is_shortened():
    returned = START + changes(9, seed=4)
    clean = following(returned, [100.0] * 9)
    returned[0] = START + 1e6 * (returned[0] - START)
    moved = following(returned, [100.0] * 9)
    longest = float((returned[1:] - START).norm(dim=1).max())
    assert float((moved.own - clean.own).norm()) < 4 * longest


@pytest.mark.parametrize("rule", ["median", "geometric_median"])
def test_another_rule_may_be_set(rule):
    returned = START + 1 + 0.1 * changes(11, seed=5)
    returned[:4] = START - 1e4
    config = AggregateConfig(rule=rule, byzantine=4)
    found = following(returned, [10.0] * 11, rule=config)
    assert float((found.own - START - 1).abs().max()) < 1


def test_one_site_does_not_take_over_the_row_of_a_class():
    own = 0.1 * changes(20)
    honest = mean_change(TARGET, own, torch.full((20,), 10.0))
    forged = own.clone()
    row = TARGET.layout.unflatten(forged[0])[TARGET.output_weight]
    length = float(own.norm(dim=1).median())
    row[1] = 2.5 * length / row.shape[1] ** 0.5
    found = following(START + forged, [10.0] * 20).own - START
    moved = float((found - honest).norm())
    assert moved < 0.25 * length


@pytest.mark.parametrize("rule", ["median", "clipped_mean", "geometric_median"])
def test_a_made_up_number_of_examples_does_not_stop_a_robust_rule(rule):
    returned = START + 0.1 * changes(6)
    chosen = AggregateConfig(rule=rule, byzantine=1)
    one = following(returned, [1e9] + [20.0] * 5, rule=chosen)
    other = following(returned, [20.0] * 6, rule=chosen)
    assert torch.equal(one.own, other.own)
