"""No reply of an honest site comes near the bound, and the bound is near the largest reply."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)

from f2l_fed.targets import build_target
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.targets.registry import TARGETS
from f2l_fed.wire.messages import NUMBERS, ProbeReply, Update
from f2l_fed.wire.packing import pack_probe_reply, pack_update
from f2l_fed.wire.reply_bound import MOST_EPISODES, largest_built_in, reply_bound
from tests.support.small import rng


def sent(content):
    """Objects and bytes of a message's content as Flower sends them."""
    with no_object_id_recompute():
        nodes = sum(1 for _ in iterate_object_tree(get_object_tree(content)))
        objects = get_all_nested_objects(content).values()
        return nodes, sum(len(one.deflate()) for one in objects)


def largest_update(layout, episodes, *, body=None, protocol=3):
    rows = torch.randn(2 * episodes, layout.size, generator=rng(1))
    update = Update(
        site="s" * 64,
        round=10**6,
        chosen=("sample-1000000",) * episodes,
        weights=rows[:episodes],
        probes=rows[episodes:],
        numbers=dict.fromkeys(NUMBERS, 1 / 3),
        body=None if body is None else torch.randn(body.size, generator=rng(2)),
    )
    return pack_update(update, layout, body=body, protocol=protocol)


def layout_of(name):
    return build_target(name, (784,) if name == "mlp" else (3, 32, 32), 200).layout


@pytest.mark.parametrize("name", TARGETS)
def test_the_largest_reply_about_a_built_in_network_is_well_within_its_bound(name):
    layout = layout_of(name)
    bound, default = reply_bound(layout, MOST_EPISODES), largest_built_in()
    # The message is one more object.
    nodes, size = sent(largest_update(layout, MOST_EPISODES))
    assert 1.2 * (nodes + 1) <= bound.objects <= 1.3 * (nodes + 1)
    assert 1.2 * size <= bound.bytes <= 1.7 * size
    assert bound.objects <= default.objects
    assert bound.bytes <= default.bytes


def test_one_episode_leaves_room_for_everything_that_is_fixed():
    layout = layout_of("cnn-xs")
    bound = reply_bound(layout, 1)
    for content in (
        largest_update(layout, 1),
        largest_update(layout, 1, protocol=4),
        pack_probe_reply(ProbeReply(site="s" * 64, probes=torch.zeros(1, layout.size)), layout),
    ):
        nodes, size = sent(content)
        assert nodes + 1 <= bound.objects
        assert size + 4096 <= bound.bytes


def test_a_tensor_that_flower_sends_in_pieces_is_counted_by_its_pieces():
    layout = WeightLayout(("w" * 200, "b"), ((5_000, 1_000), (3,)))
    nodes, size = sent(largest_update(layout, 1))
    bound = reply_bound(layout, 1)
    assert nodes == 1 + 2 + 2 * (1 + 5 + 2)
    assert nodes + 1 <= bound.objects <= 1.3 * (nodes + 1) + 1
    assert 1.2 * size <= bound.bytes <= 1.3 * size


@pytest.mark.parametrize("episodes", [1, 8, 600])
def test_a_reply_with_a_body_is_a_few_objects_within_its_bound(episodes):
    body, head = (
        layout_of("cnn-xs"),
        WeightLayout(("head.weight", "head.bias"), ((200, 64), (200,))),
    )
    nodes, size = sent(largest_update(head, episodes, body=body, protocol=4))
    bound = reply_bound(head, episodes, body)
    assert nodes + 1 <= bound.objects <= 1.3 * (nodes + 1)
    assert 1.2 * size <= bound.bytes <= 1.3 * size + 1.3 * 16_384
    assert bound.objects == 13 if episodes < 600 else bound.objects > 13


def test_without_a_body_the_bound_holds_in_both_protocols():
    layout = WeightLayout(("w",), ((10,),))
    bound = reply_bound(layout, 1)
    for protocol in (3, 4):
        nodes, size = sent(largest_update(layout, 1, protocol=protocol))
        assert nodes + 1 <= bound.objects
        assert size <= bound.bytes


def test_the_superlink_learns_the_bound_without_torch():
    code = "import sys, f2l_fed.wire.reply_bound; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
