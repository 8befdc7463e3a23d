"""Cost of the prior as records become more: time, memory, rank and file.

`python -m tests.benchmarks.prior_growth [--quick] [--json OUT.json]`

Random records, of which a part of rank 40 is told by the context, one a site, each size in a fresh
process. ``prior`` is `fit_prior`, ``families`` the search for families of networks, ``gate`` the
likeness gate of heads (on 145 x 5 weights, eight pairs a site): seconds of one thread's CPU.
``growth`` is the ratio to half the records; ``ratio`` that of the prior's time to the products it
cannot do without (two Gram matrices and the held-out predictions, or what is as much: 6 N²D
operations in float64 at the speed of one large product, N being the smaller of both). ``peak`` is
what the process held at most for the prior, less contexts and weights, for every number in these,
and ``file`` the size of the common part's map, for every number too.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from f2l_fed.prior.families import find_families
from f2l_fed.prior.linear_prior import fit_prior, with_gate
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import build_target
from tests.benchmarks.common import memory_mib, write_json

CASES = (
    *((records, 2_245) for records in (625, 1_250, 2_500, 5_000, 10_000)),
    *((records, 271_861) for records in (50, 100, 200, 400)),
)
QUICK = ((250, 2_245), (500, 2_245), (25, 271_861))
RANK = 40
NAMES = {2_245: ("mlp", (1, 8, 8)), 271_861: ("resnet20", (1, 28, 28))}
PRODUCTS = 3


def records_of(count: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(count, 1, size) contexts and weights."""
    base = torch.randn(RANK, size, generator=rng)
    common = torch.randn(count, RANK, generator=rng) @ base / 8
    contexts = common + torch.randn(count, size, generator=rng) / 2
    weights = 2 * common + torch.randn(count, size, generator=rng) / 2
    return contexts[:, None], weights[:, None]


def speed() -> float:
    """Multiplications and additions a second of one thread in float64."""
    a = torch.randn(1_000, 1_000, dtype=torch.float64)
    start = process_time()
    for _ in range(5):
        a @ a
    return 5 * 2e9 / (process_time() - start)


def gate_seconds(sites: int, rng: torch.Generator) -> float:
    """Of a gate for heads of five classes on 144 features."""
    width = 145
    symmetry = OutputSymmetry(torch.arange(0), torch.arange(5 * width).view(5, width), 5 * width)
    classes = torch.randn(20, width, generator=rng)
    chosen = torch.stack([torch.randperm(20, generator=rng)[:5] for _ in range(sites)])
    heads = classes[chosen][:, None] + torch.randn(sites, 8, 5, width, generator=rng) / 3
    weights = (heads - heads.mean(2, keepdim=True)).flatten(2)
    contexts = weights / 2 + torch.randn(weights.shape, generator=rng) / 4
    fit = fit_prior(contexts, weights, symmetry, torch.zeros(5 * width))
    start = process_time()
    with_gate(fit, contexts, weights)
    return process_time() - start


def measured(count: int, size: int) -> dict[str, Any]:
    """The figures of one size."""
    torch.set_num_threads(1)
    name, shape = NAMES[size]
    target = build_target(name, shape, 5)
    size = target.layout.size
    symmetry, rng = OutputSymmetry.of(target, enabled=True), torch.Generator().manual_seed(0)
    contexts, weights = records_of(count, size, rng)
    anchor, numbers = torch.zeros(size), 2 * contexts.numel()
    before, start = memory_mib("VmRSS"), process_time()
    fit = fit_prior(contexts, weights, symmetry, anchor)
    seconds, peak = process_time() - start, (memory_mib("VmHWM") - before) * 2**20
    start = process_time()
    find_families(contexts, weights, symmetry, anchor, fit, most=8)
    families = process_time() - start
    least, most = sorted((count, size))
    common = fit.prior.common
    return {
        "records": count,
        "parameters": size,
        "prior": seconds,
        "families": families,
        "gate": gate_seconds(count, rng),
        "bound": PRODUCTS * 2.0 * least**2 * most / speed(),
        "peak": peak / numbers,
        "rank": len(common.right),
        "file": 4 * (common.left.numel() + common.right.numel()) / numbers,
        "strength": fit.common.strength,
    }


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    print(
        f"{'records':>8}{'weights':>9}{'prior':>9}{'growth':>8}{'ratio':>7}{'families':>10}"
        f"{'gate':>8}{'peak':>14}{'rank':>6}{'file':>14}"
    )
    rows: list[dict[str, Any]] = []
    for count, size in QUICK if chosen.quick else CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(measured, count, size).result()
        half = [one["prior"] for one in rows if one["records"] * 2 == count]
        row["growth"] = row["prior"] / half[-1] if half else float("nan")
        rows.append(row)
        print(
            f"{count:>8}{row['parameters']:>9}{row['prior']:>7.1f} s{row['growth']:>8.1f}"
            f"{row['prior'] / row['bound']:>7.1f}{row['families']:>8.1f} s{row['gate']:>6.1f} s"
            f"{row['peak']:>8.1f} bytes{row['rank']:>6}{row['file']:>8.2f} bytes",
            flush=True,
        )
    write_json(chosen.json, {"rows": rows})


if __name__ == "__main__":
    main()
