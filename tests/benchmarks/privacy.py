"""The accuracy that differential privacy at all sites costs.

`python -m tests.benchmarks.privacy [--quick] [--seeds N] [--data NAMES] [--json OUT.json]`

Three rounds of a few-shot federation in which every site sends noised updates and probes, for
several budgets ε that cover all it ever sends (δ = 1e-4, one example as the unit), next to the
same federation without noise. Accuracy is that of the generated start at held-out sites, as
generated and after the last number of local steps; their own probes have no noise. Differences are
from the run without noise of the same seed, paired by site, with Student's 95%. ``spent`` is the
largest ε that a site's ledger holds at the end, ``kept out`` the share of submissions that
admission kept out of the zoo. The gate lets every release pass, so that the noise is measured and
not the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clients.site.site import open_site
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.local_training.finetune import STEPS
from server.cluster.held_out import curves_of
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out
from tests.benchmarks.poison import ANY_RELEASE, SMALL
from tests.support.inline import run_inline

ROUNDS = 3
BUDGETS = (0.0, 1000.0, 100.0, 30.0, 10.0, 3.0)


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a federation: (sites, steps) accuracies and costs."""

    accuracy: list[list[float]]
    spent: float
    put_aside: float


def job(
    seed: int, epsilon: float, sites: int, held_out: int, data: str, settings: Sequence[str]
) -> Found:
    """Runs a federation and measures its last release."""
    with laid_out(seed, sites, held_out, data, (*settings, *ANY_RELEASE)) as (federation, divided):
        files = sorted((federation.root / "sites").glob("*/site.toml"))
        if epsilon:
            for path in files:
                # One answer for each round, and one for the introduction before the first.
                section = (
                    f"\n[privacy]\nepsilon = {epsilon}\ndelta = 1e-4\nanswers = {ROUNDS + 1}\n"
                )
                path.write_text(path.read_text() + section)
        run_inline(federation, ROUNDS)
        measured = [site for some in held_out_sites(divided).values() for site in some or ()]
        curves = curves_of(federation.root, federation.releases.measured().id, measured)
        stored = {(one.site, one.round) for one in federation.zoo.snapshot().records()}
        budgets = [open_site(path).budget for path in files]
        return Found(
            accuracy=[curves[site.name][GENERATED] for site in measured],
            spent=max(budget.spent()["spent"] if budget else 0.0 for budget in budgets),
            put_aside=1 - len(stored) / (ROUNDS * len(files)),
        )


def main() -> None:
    """Runs every federation, prints a table, and writes the figures if asked to."""
    asked = options(__doc__ or "")
    sites, held_out, settings, budgets = 100, 15, (), BUDGETS
    if asked.quick:
        settings = ("target.name=mlp", "first.steps=40", "flow.steps=60", *SMALL)
        sites, held_out, asked.data = 20, 8, "digits"
    rows = [(seed, epsilon) for seed in range(asked.seeds) for epsilon in budgets]
    run: Callable[..., Found] = job
    plans = [(*row, sites, held_out, asked.data, settings) for row in rows]
    found = dict(zip(rows, side_by_side(run, plans), strict=True))
    tables = {}
    print(f"{sites} sites; accuracy as generated and after {STEPS[-1]} steps, and points lost")
    print(f"{'epsilon':>10}{'spent':>9}{'start':>8}{'lost':>15}{'tuned':>8}{'lost':>15}  kept out")
    for epsilon in budgets:
        mine = [found[seed, epsilon] for seed in range(asked.seeds)]
        clean = [found[seed, 0.0] for seed in range(asked.seeds)]
        row = {
            **paired(_stacked(mine), _stacked(clean)),
            "spent": max(one.spent for one in mine),
            "put_aside": sum(one.put_aside for one in mine) / len(mine),
        }
        tables[f"{epsilon:g}"] = row
        cells = ""
        for step in (0, -1):
            points, half = -100 * row["difference"][step], 100 * row["ci95"][step]
            cells += f"{row['accuracy'][step]:8.3f}{points:9.1f} ±{half:4.1f}"
        name = f"{epsilon:g}" if epsilon else "no noise"
        print(f"{name:>10}{row['spent']:9.2f}{cells}{row['put_aside']:11.0%}")
    write_json(asked.json, {"steps": list(STEPS), "sites": sites, "budgets": tables})


def _stacked(parts: Sequence[Found]) -> torch.Tensor:
    return torch.tensor([site for one in parts for site in one.accuracy], dtype=torch.float64)


if __name__ == "__main__":
    main()
