"""Logistic heads by Newton's method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional

from f2l_fed.local_training.logistic_head import flat, logistic_head, rows


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
