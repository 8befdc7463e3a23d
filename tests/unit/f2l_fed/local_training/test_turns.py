"""Turns and inversions of images."""

from __future__ import annotations

import torch

from f2l_fed.local_training.turns import drawn_turn, fixed_turns, turned


def test_the_untouched_task_is_the_first_of_eight():
    known = fixed_turns((3, 8, 8), True, True)
    assert known[0] == (0, False)
    assert len(set(known)) == 8


def test_what_can_not_be_turned_is_not():
    assert fixed_turns((3, 8, 6), True, True) == ((0, False), (0, True))
    assert fixed_turns((1, 8, 8), True, False) == ((0, False), (1, False), (2, False), (3, False))
    assert fixed_turns((1, 8, 8), False, False) == ((0, False),)
    assert fixed_turns((12,), True, True) == ((0, False),)


def test_four_quarter_turns_and_two_inversions_are_nothing():
    x = torch.rand(2, 1, 5, 5)
    assert torch.equal(turned(turned(x, 1, False), 3, False), x)
    torch.testing.assert_close(turned(turned(x, 0, True), 0, True), x)


def test_all_turns_are_drawn():
    x = torch.arange(4.0).view(1, 1, 2, 2) / 4
    rng = torch.Generator().manual_seed(0)
    seen = {tuple(drawn_turn(x, True, True, rng).flatten().tolist()) for _ in range(200)}
    assert len(seen) == 8
