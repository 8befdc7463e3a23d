"""Odd tensors at the public functions: a right answer or one clear error, never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from f2l_fed.aggregate.registry import AGGREGATORS
from f2l_fed.errors import F2LError, TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import accuracy_after, finetune
from f2l_fed.local_training.probe import probe_update, support_set
from f2l_fed.local_training.selection import select
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from tests.support.small import examples, records, rng, small_target

TARGET = small_target()
SIZE = TARGET.layout.size
START = TARGET.initialise(rng(0))
X, Y = examples(TARGET, 12)
CONTEXTS, WEIGHTS = (rows[:, None] for rows in records(SIZE, 12))
SYMMETRY = OutputSymmetry.of(TARGET, enabled=True)
RECIPE = Recipe(steps=2)


def odd(plain: Tensor) -> Iterator[tuple[str, Any]]:
    """Values that are almost that tensor."""
    yield "sparse", plain.to_sparse()
    yield "meta", plain.to("meta")
    yield "none", None
    yield "numpy", plain.numpy()
    yield "scalar", torch.zeros((), dtype=plain.dtype)
    yield "empty", plain[:0]
    yield "pair", torch.stack([plain, plain])
    yield "strided", torch.stack([plain, plain], -1)[..., 0]
    yield "expanded", plain[:1].expand_as(plain)
    if plain.is_floating_point():
        yield "grad", plain.clone().requires_grad_()
        yield "complex", plain + 0j
        for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int64):
            yield str(kind), plain.to(kind)
        yield "nan", plain * float("nan")
        yield "infinite", plain * float("inf")
    else:
        yield "float", plain.float()
        yield "negative", plain - 100
        yield "beyond", plain + 100


def aggregated(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(rows: Tensor, weights: Tensor) -> Tensor:
        rule = AGGREGATORS[name](0 if name == "mean" else 1)
        return rule.finalise(rule.accumulate(rule.init(SIZE), rows, weights))

    return call


def flattened(tensor: Tensor) -> Tensor:
    parts = TARGET.layout.unflatten(START)
    return TARGET.layout.flatten({**parts, next(iter(parts)): tensor})


CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "flatten": (flattened, (next(iter(TARGET.layout.unflatten(START).values())),)),
    "unflatten": (TARGET.layout.unflatten, (START,)),
    "finetune": (lambda w, x, y: finetune(TARGET, w, x, y, RECIPE, rng(0)), (START, X, Y)),
    "accuracy_after": (
        lambda w, x, y: accuracy_after(TARGET, w, (x, y), (x, y), RECIPE, rng(0), (0, 1)),
        (START, X, Y),
    ),
    "probe_update": (lambda w, x, y: probe_update(TARGET, w, x, y, RECIPE), (START, X, Y)),
    "support_set": (lambda y: support_set(y, 2, rng(0)), (Y,)),
    "select": (lambda w, x, y: select(TARGET, {"a": w, "b": START}, x, y), (START, X, Y)),
    "fit_prior": (
        lambda c, w, a: fit_prior(c, w, SYMMETRY, a),
        (CONTEXTS, WEIGHTS, torch.zeros(SIZE)),
    ),
    **{name: (aggregated(name), (WEIGHTS[:, 0], torch.ones(12))) for name in AGGREGATORS},
}


@pytest.mark.parametrize("name", CALLS)
def test_an_odd_tensor_has_an_answer_or_one_clear_error(name):
    call, arguments = CALLS[name]
    call(*arguments)
    failures = []
    for position, plain in enumerate(arguments):
        for kind, value in odd(plain):
            given = [*arguments]
            given[position] = value
            try:
                call(*given)
            except F2LError:
                continue
            except Exception as error:
                failures.append(f"argument {position}, {kind}: {error!r}"[:120])
    assert failures == []


def test_a_weight_that_is_sparse_complex_or_empty_of_numbers_is_named():
    with pytest.raises(F2LError, match=r"weights: the tensor can't be used: .*got a sparse tensor"):
        finetune(TARGET, START.to_sparse(), X, Y, RECIPE, rng(0))
    with pytest.raises(F2LError, match=r"inputs: .*torch.float32.*got a meta tensor"):
        finetune(TARGET, START, X.to("meta"), Y, RECIPE, rng(0))
    with pytest.raises(F2LError, match=r"labels: .*labels from 0 to 2, got 100 to 102"):
        probe_update(TARGET, START, X, Y + 100, RECIPE)


@pytest.mark.parametrize("device", ["meta", "sparse"])
def test_a_target_without_plain_parameters_is_refused(device):
    def factory() -> nn.Module:
        layer = nn.Linear(4, 3, device="meta" if device == "meta" else None)
        if device == "sparse":
            layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
        return layer

    with pytest.raises(TargetError, match=r"a parameter is not a plain tensor: got weight: a "):
        Target.of("odd", factory, (4,), 3)
