"""The accuracy that a privacy budget costs where all sites share a body.

`python -m tests.benchmarks.private_body [--quick] [--seeds N] [--data NAMES] [--json OUT.json]`

Few-shot sites train a body over eight rounds in one process, by the functions that sites and server
call (`tests.benchmarks.bodies`), without messages. A private site sends nothing but its noised
body; ε covers all eight rounds (δ = 1e-5; one example as the unit, replaced by any other). Accuracy
is that of the logistic head that a held-out site makes of its 25 examples on the last body, without
a step: no heads leave private sites, so there is no prior. Differences are from the run
without privacy of the same seed, paired by site, with Student's 95%.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clients.site.privacy_budget import PrivacyConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.privacy.accountant import Ledger, noise_multiplier_for
from f2l_fed.privacy.episodic_dp import train_body_privately
from tests.benchmarks.bodies import HELD_OUT, ROUNDS, SITES, FewShot
from tests.benchmarks.common import options, paired, write_json

PRIVACY = PrivacyConfig()


@dataclass(frozen=True, slots=True)
class Row:
    """A federation: its budget, 0 for none, and its shares of private and of plain sites."""

    epsilon: float
    private: float
    plain: float

    def __str__(self) -> str:
        if not self.private:
            return "no privacy" if self.plain == 1 else f"no privacy, {self.plain:.0%} of the sites"
        return f"epsilon {self.epsilon:g}" + ("" if self.private == 1 else ", the other half plain")


CLEAN = Row(0, 0, 1)
ROWS = (CLEAN, Row(8, 1, 0), Row(2, 1, 0), Row(0, 0, 0.5), Row(8, 0.5, 0.5))


def noise_of(epsilon: float, rounds: int) -> float:
    """The noise multiplier with which all rounds together spend the budget."""
    steps = rounds * PRIVACY.body_steps
    return noise_multiplier_for(epsilon, PRIVACY.delta, [(1.0, steps)])


def trained(federation: FewShot, row: Row, rounds: int) -> Tensor:
    """(B,) float32, the body after all rounds."""
    count = len(federation.sites)
    private = round(row.private * count)
    used = replace(federation, sites=federation.sites[: private + round(row.plain * count)])
    noise = noise_of(row.epsilon, rounds) if private else 0.0

    def train(site: int, number: int, weights: Tensor) -> Tensor:
        if site >= private:
            return used.trained(site, number, weights)
        return train_body_privately(
            used.body,
            weights,
            *used.sites[site],
            used.episodes,
            PRIVACY.body_steps,
            lr=PRIVACY.body_lr,
            noise_multiplier=noise,
            max_norm=PRIVACY.max_norm,
            rng=generator_for(used.lineage, number, site, "private"),
        )

    return used.rounds(train, count=rounds)


def main() -> None:
    """Runs every federation, prints a table, and writes the figures if asked to."""
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    sites, held_out, rounds = (8, 6, 2) if asked.quick else (SITES, HELD_OUT, ROUNDS)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(asked.seeds):
        federation = FewShot.of(seed, asked.data, sites=sites, held_out=held_out)
        bodies = {"untrained": federation.first}
        bodies |= {str(row): trained(federation, row, rounds) for row in ROWS}
        for name, body in bodies.items():
            for kind, accuracy in federation.accuracies(body).items():
                found.setdefault(name, {}).setdefault(kind, []).extend(accuracy)
    tables = {
        name: {
            kind: paired(_column(accuracy), _column(found[str(CLEAN)][kind]))
            for kind, accuracy in parts.items()
        }
        for name, parts in found.items()
    }
    print(f"{sites} sites, {rounds} rounds, {asked.seeds} seeds; accuracy, and points lost")
    for name, parts in tables.items():
        print(f"{name:32}" + "".join(f"{kind:>8} {_cell(row)}" for kind, row in parts.items()))
    budgets = {
        f"{row.epsilon:g}": {
            "noise_multiplier": (noise := noise_of(row.epsilon, rounds)),
            "spent": Ledger().spend(noise, 1.0, rounds * PRIVACY.body_steps).epsilon(PRIVACY.delta),
        }
        for row in ROWS
        if row.epsilon
    }
    setup = {"sites": sites, "rounds": rounds, "seeds": asked.seeds, "delta": PRIVACY.delta}
    write_json(asked.json, {**setup, "budgets": budgets, "rows": tables})


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _cell(row: dict[str, list[float]]) -> str:
    lost, half = -100 * row["difference"][0], 100 * row["ci95"][0]
    return f"{100 * row['accuracy'][0]:6.1f}{lost:6.1f} ±{half:4.1f}"


if __name__ == "__main__":
    main()
