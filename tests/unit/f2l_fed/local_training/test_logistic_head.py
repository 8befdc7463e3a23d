"""Logistic heads by Newton's method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional

from f2l_fed.local_training import logistic_head as module
from f2l_fed.local_training.logistic_head import flat, logistic_head, logistic_heads, rows


def problem(n, features, classes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=rng)
    return x, torch.arange(n) % classes, torch.randn(classes * (features + 1), generator=rng)


def objective(head, x, y, classes, strength, towards):
    weight, bias = head[:-classes].view(classes, -1), head[-classes:]
    loss = functional.cross_entropy(x @ weight.T + bias, y)
    return loss + strength / 2 * (head - towards).square().sum()


@pytest.mark.parametrize(("n", "features", "classes"), [(6, 40, 3), (200, 5, 2), (30, 30, 7)])
@pytest.mark.parametrize("strength", [1.0, 1e-3])
@pytest.mark.parametrize("pulled", [False, True])
def test_it_is_the_minimum_that_another_method_finds(n, features, classes, strength, pulled):
    x, y, towards = problem(n, features, classes)
    towards = towards if pulled else torch.zeros_like(towards)
    found = logistic_head(x, y, classes, strength=strength, towards=towards if pulled else None)
    double = (x.double(), y, classes, strength, towards.double())

    def value_and_gradient(values):
        head = torch.from_numpy(values).requires_grad_()
        value = objective(head, *double)
        value.backward()
        return value.item(), head.grad.numpy()

    best = minimize(
        value_and_gradient, np.zeros(len(towards)), jac=True, method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    assert objective(found.double(), *double) <= best.fun + 1e-6
    torch.testing.assert_close(found.double(), torch.from_numpy(best.x), atol=1e-3, rtol=1e-2)


def test_the_same_examples_give_the_same_bits():
    x, y, _ = problem(25, 144, 5)
    one, other = (logistic_head(x, y, 5, strength=0.01) for _ in range(2))
    assert torch.equal(one, other)


def test_permuted_labels_permute_the_rows():
    x, y, _ = problem(25, 20, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = rows(logistic_head(x, y, 5, strength=0.01), 5)
    permuted = rows(logistic_head(x, order[y], 5, strength=0.01), 5)
    torch.testing.assert_close(permuted[order], plain, atol=1e-5, rtol=1e-4)


def test_a_class_without_examples_has_a_head_all_the_same():
    x, y, _ = problem(6, 4, 2)
    head = logistic_head(x, y, 3, strength=0.1)
    assert bool(head.isfinite().all())
    assert not bool(((x @ rows(head, 3)[:, :-1].T + rows(head, 3)[:, -1]).argmax(1) == 2).any())


def test_huge_features_still_end():
    x, y, _ = problem(10, 4, 2)
    assert bool(logistic_head(1e4 * x, y, 2, strength=1e-3).isfinite().all())


def test_without_biases():
    x, y, _ = problem(10, 4, 2)
    head = logistic_head(x, y, 2, strength=0.1, bias=False)
    assert head.shape == (8,)
    assert torch.equal(flat(rows(head, 2, bias=False), bias=False), head)


@pytest.mark.parametrize("numbers", [1, 1 << 20])
@pytest.mark.parametrize("bias", [True, False])
def test_heads_that_are_solved_together_are_those_that_are_solved_alone(numbers, bias, monkeypatch):
    monkeypatch.setattr(module, "_TOGETHER", numbers)
    # The last one needs far more steps than the first, which stays where it ends.
    sets = [problem(20, 30, 4, seed) for seed in range(3)]
    x = torch.stack([x * scale for (x, _, _), scale in zip(sets, (0.01, 1, 50), strict=True)])
    y = torch.stack([y.roll(seed) for seed, (_, y, _) in enumerate(sets)])
    found = logistic_heads(x, y, 4, strength=0.01, bias=bias)
    alone = [logistic_head(*one, 4, strength=0.01, bias=bias) for one in zip(x, y, strict=True)]
    torch.testing.assert_close(found, torch.stack(alone), atol=1e-3, rtol=1e-2)


def test_a_loss_that_overflows_has_no_head():
    x, y, _ = problem(10, 4, 2)
    x[3, 1] = torch.inf
    heads = logistic_heads(torch.stack([x, x.clamp(max=1)]), y.expand(2, -1), 2, strength=0.1)
    assert heads.isnan().all(1).tolist() == [True, False]
