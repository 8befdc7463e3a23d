"""Share of what a device can do that the heavy parts reach: flow, prior, draws and fine-tuning.

`python -m tests.benchmarks.gpu [--device auto|cpu|cuda] [--quick] [--json OUT.json]`

First the device's own speed is measured, the best of five: large products of matrices in float32
and float64, and a large copy. ``share`` of a part is then the least time in which its products or
its memory traffic could be done at these speeds, over the median time that it takes. Products are
counted as torch counts them; of traffic what is written once and read once, weights and states.

``flow step`` is a gradient step with its optimiser, ``prior`` the two products in float64 that a
prior of so many records can't do without, a block of columns at a time (it runs on the CPU so
far), ``draws`` the networks around one prediction, and ``sites`` ten full-batch steps of 1,000
sites, one after the other (``sites apart``, of which a few are timed) and as one batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from f2l_fed.core.device import DEVICES, device_of
from f2l_fed.flow import FlowConfig
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.flow.velocity_regression import RegressionBatch, VelocityTraining
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.targets import Target, build_target
from tests.benchmarks.common import write_json
from tests.benchmarks.compact_release import random_generator

RECIPE = Recipe(steps=10, max_gradient_norm=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of one run.

    Args:
        matrix: Rows of the square matrices that speed is measured with.
        batch: Examples of a flow step.
        prior: Records and parameters of the prior's products.
        block: Columns of a block of these.
        network: The network that is drawn.
        fitted: Records that its generator is fitted on.
        draws: Networks that are drawn.
        sites: Sites that are fine-tuned.
        apart: As many of these one after the other.
        repeats: Times that a part is measured.
    """

    matrix: int = 8192
    batch: int = 4096
    prior: tuple[int, int] = (16_000, 272_000)
    block: int = 8_192
    network: str = "resnet20"
    fitted: int = 128
    draws: int = 1024
    sites: int = 1000
    apart: int = 20
    repeats: int = 5


QUICK = Sizes(
    matrix=512,
    batch=128,
    prior=(200, 4_000),
    block=1_000,
    network="mlp",
    fitted=40,
    draws=64,
    sites=50,
    apart=10,
    repeats=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a part has to do at least.

    Args:
        single: Operations in float32.
        double: Operations in float64.
        bytes: Memory traffic.
    """

    single: float = 0.0
    double: float = 0.0
    bytes: float = 0.0


def times(job: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of a job until the device has done it; a first run does not count."""
    spent = []
    for _ in range(repeats + 1):
        start = perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(perf_counter() - start)
    return spent[1:]


def roofline(device: torch.device, sizes: Sizes) -> Work:
    """The most that the device does in a second."""
    many, found = sizes.matrix, {}
    for name, kind in (("single", torch.float32), ("double", torch.float64)):
        matrix = torch.randn(many, many, device=device, dtype=kind)
        found[name] = 2 * many**3 / min(times(partial(torch.mm, matrix, matrix), device, 5))
    source = torch.randn(64 * 2**20 if many > 1_000 else 2**22, device=device)
    copied = min(times(partial(torch.empty_like(source).copy_, source), device, 5))
    return Work(**found, bytes=2 * source.nbytes / copied)


def operations(job: Callable[[], object]) -> float:
    """Operations of the products in a job, as torch counts them."""
    counter = FlopCounterMode(display=False)
    with counter:
        job()
    return float(counter.get_total_flops())


def flow_step(device: torch.device, sizes: Sizes) -> tuple[Callable[[], object], Work]:
    """A gradient step of a field for latents of a small network of five classes."""
    _, generator, _ = random_generator("mlp", 40)
    shape, config = generator.codec.shape, FlowConfig()
    field = VelocityField(
        shape, torch.ones(shape.size), config.source, width=config.width, depth=config.depth
    ).to(device)
    optimiser = torch.optim.AdamW(field.parameters(), lr=config.lr)
    rng, many = torch.Generator().manual_seed(0), (sizes.batch, shape.size)
    known, (x, context, velocity) = torch.ones(sizes.batch), torch.randn(3, *many, generator=rng)
    batch = RegressionBatch(torch.rand(sizes.batch, generator=rng), x, context, known, velocity)

    def step() -> None:
        optimiser.zero_grad()
        # As a fit does it: examples are made on the CPU, and moved.
        VelocityTraining().descend(field, batch.to(device))
        optimiser.step()

    # Weight, gradient and two moments are read, and all but the gradient written.
    traffic = 7 * 4 * sum(parameter.numel() for parameter in field.parameters())
    return step, Work(single=operations(step), bytes=traffic)


def prior(device: torch.device, sizes: Sizes) -> tuple[Callable[[], object], Work]:
    """The Gram matrix and the held-out predictions of so many records, by blocks of columns."""
    records, columns = sizes.prior
    some = torch.randn(records, sizes.block, device=device)
    weights = torch.randn(records, records, device=device, dtype=torch.float64)
    blocks = -(-columns // sizes.block)

    def products() -> None:
        gram = torch.zeros_like(weights)
        for _ in range(blocks):
            block = some.double()
            gram.addmm_(block, block.T)
        for _ in range(blocks):
            (weights @ some.double()).float()

    work = 2 * 2 * records**2 * blocks * sizes.block
    return products, Work(double=work, bytes=3 * 4 * records * blocks * sizes.block)


def drawing(device: torch.device, sizes: Sizes) -> tuple[Callable[[], object], Work]:
    """Networks around one prediction, by four evaluations of the flow."""
    target, generator, records = random_generator(sizes.network, sizes.fitted)
    config = replace(generator.config, sample=replace(generator.config.sample, evaluations=4))
    there: Generator = replace(generator, config=config).to(device)
    context, rng = records.contexts[:1].to(device), torch.Generator().manual_seed(0)
    expected = there.expect(context)

    @torch.no_grad()
    def draw() -> Tensor:
        return there.carry(expected, there.noise(sizes.draws, rng))

    return draw, Work(single=operations(draw), bytes=4 * sizes.draws * target.layout.size)


def batched_steps(target: Target, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(S, D) float32, the networks of S sites after `RECIPE`, all of them in each step.

    Args:
        target: The network.
        weights: (S, D) float32.
        x: (S, n, *input_shape) float32.
        y: (S, n) int64.
    """

    def loss(theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(target.logits(theta, inputs), labels)

    gradients = vmap(grad(loss))
    theta, momentum = weights.clone(), torch.zeros_like(weights)
    for _ in range(RECIPE.steps):
        momentum.mul_(RECIPE.momentum).add_(gradients(theta, x, y))
        theta.sub_(momentum, alpha=RECIPE.lr)
    return theta


def fine_tuning(
    device: torch.device, sizes: Sizes
) -> tuple[Callable[[], object], Callable[[], object], Work]:
    """Few sites one after the other, all sites as a batch, and the work of one site."""
    target, rng = build_target("mlp", (1, 8, 8), 5).to(device), torch.Generator().manual_seed(0)
    weights = target.initialise(rng).expand(sizes.sites, -1).to(device)
    x = torch.rand(sizes.sites, 50, 1, 8, 8, generator=rng).to(device)
    y = torch.randint(5, (sizes.sites, 50), generator=rng).to(device)

    def apart() -> None:
        for site in range(sizes.apart):
            finetune(target, weights[site], x[site], y[site], RECIPE, rng)

    def together() -> None:
        batched_steps(target, weights, x, y)

    one = operations(lambda: finetune(target, weights[0], x[0], y[0], RECIPE, rng))
    traffic = RECIPE.steps * 5 * 4 * target.layout.size
    return apart, together, Work(single=one, bytes=traffic)


def measured(device: torch.device, sizes: Sizes) -> list[dict[str, float | str]]:
    """The rows of the table."""
    speed, rows = roofline(device, sizes), list[dict[str, float | str]]()

    def add(part: str, job: Callable[[], object], work: Work, count: int = 1) -> None:
        spent = median(times(job, device, sizes.repeats)) / count
        products = work.single / speed.single + work.double / speed.double
        least = max(products, work.bytes / speed.bytes)
        rows.append({"part": part, "ms": 1e3 * spent, "share": least / spent})

    print(
        f"{device}: {speed.single / 1e9:.0f} and {speed.double / 1e9:.0f} Gflop/s in float32 and "
        f"float64, {speed.bytes / 1e9:.0f} GB/s"
    )
    add(f"flow step of {sizes.batch}", *flow_step(device, sizes))
    add(f"prior of {sizes.prior[0]} x {sizes.prior[1]}", *prior(device, sizes))
    add(f"{sizes.draws} draws of {sizes.network}", *drawing(device, sizes))
    apart, together, work = fine_tuning(device, sizes)
    add("a site, sites apart", apart, work, sizes.apart)
    add(f"a site, {sizes.sites} at once", together, work, sizes.sites)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    device = device_of(chosen.device, "--device")
    rows = measured(device, QUICK if chosen.quick else Sizes())
    for row in rows:
        print(f"{row['part']:<32}{row['ms']:>12.3f} ms{100 * float(row['share']):>8.1f} %")
    write_json(chosen.json, {"device": str(device), "rows": rows})


if __name__ == "__main__":
    main()
