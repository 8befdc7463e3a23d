"""Anchor, support set and probe are the same at site and server, and small where they should be."""

from __future__ import annotations

import torch

from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import anchor, probe_update, support_set
from f2l_fed.targets import build_target
from tests.support.small import examples, rng, small_target


def test_the_anchor_is_a_fresh_network_with_a_zero_output_layer():
    target = small_target()
    tensors = target.layout.unflatten(anchor(target, "lineage"))
    assert not tensors[target.output_weight].any()
    assert not tensors[target.output_bias].any()
    hidden = [
        tensors[name] for name in tensors if name not in (target.output_weight, target.output_bias)
    ]
    assert all(tensor.any() for tensor in hidden)


def test_every_lineage_has_one_anchor():
    target = small_target()
    assert torch.equal(anchor(target, "a"), anchor(target, "a"))
    assert not torch.equal(anchor(target, "a"), anchor(target, "b"))


def test_a_support_set_has_so_many_examples_of_every_class_or_all_there_are():
    y = torch.tensor([0] * 9 + [2] * 5 + [1] * 2)
    chosen = support_set(y, 4, rng())
    assert torch.bincount(y[chosen]).tolist() == [4, 2, 4]
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_support_sets_are_drawn_not_taken_from_the_front():
    y = torch.zeros(50, dtype=torch.int64)
    draws = {tuple(support_set(y, 5, rng(seed)).tolist()) for seed in range(5)}
    assert len(draws) == 5


def test_a_probe_is_what_full_batch_steps_change_whatever_the_batch_says():
    target = small_target()
    start, (x, y) = anchor(target, "lineage"), examples(target, 12)
    probe = probe_update(target, start, x, y, Recipe(steps=4, batch=2))
    full = finetune(target, start, x, y, Recipe(steps=4), rng())
    torch.testing.assert_close(probe, full - start, rtol=0, atol=0)
    assert probe.any()


def test_the_first_step_moves_the_output_layer_by_class_means_of_the_anchors_features():
    target = build_target("mlp", (6,), 3)
    start, (x, y) = anchor(target, "lineage"), examples(target, 12)
    probe = target.layout.unflatten(probe_update(target, start, x, y, Recipe(steps=1, lr=1.0)))
    tensors = target.layout.unflatten(start)
    features = torch.relu(x @ tensors["1.weight"].T + tensors["1.bias"])
    # At a zero output layer every class has probability 1 / K.
    residual = torch.nn.functional.one_hot(y, 3) - 1 / 3
    torch.testing.assert_close(
        probe["3.weight"], residual.T.float() @ features / len(x), rtol=0, atol=1e-6
    )
    assert not probe["1.weight"].any()
