"""Random streams come from names, and stay the same from version to version."""

from __future__ import annotations

import torch

from f2l_fed.core.random_streams import generator_for, seed_for


def test_seeds_are_the_same_as_ever():
    assert seed_for("lineage", 3, "site", "probe") == 105569348687571782


def test_every_name_and_every_boundary_between_names_matters():
    seeds = [
        seed_for("a", "b"),
        seed_for("ab"),
        seed_for("b", "a"),
        seed_for("a", "b", ""),
        seed_for("a", "c"),
        seed_for("a", 1),
        seed_for("a", 11),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_equal_names_draw_equal_numbers_and_others_do_not():
    def draw(*names):
        return torch.randn(5, generator=generator_for(*names))

    assert torch.equal(draw("a", 1), draw("a", 1))
    assert not torch.equal(draw("a", 1), draw("a", 2))
