"""The accuracy that Byzantine sites cost, with admission on and off.

`python -m tests.benchmarks.poison [--quick] [--seeds N] [--data NAMES] [--scenario NAME]
[--attack NAME] [--json OUT.json] [--kept DIR]`

Three rounds of a federation (few-shot, unless another scenario is named) of 40 sites of which
none, 10% or 30% are Byzantine in every round. ``off`` rejects only what can't be a network at all
(`OFF`); ``on`` is the default. The gate lets every release pass in all rows, so that admission is
measured and not the gate. Accuracy is that of the generated start at honest held-out sites, before
and after the last number of local steps; differences are from the run without attack of the same
seed, paired by site, with Student's 95%. ``let in`` is the share of Byzantine submissions that the
zoo holds and ``used`` that of the records in the last release; ``lost`` counts honest submissions
kept out of the zoo. In ``labels shuffled`` sites are honest but their labels are not: nothing
contradicts them. With ``--kept`` results are kept in a folder, and an interrupted run continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data import load_dataset, save_npz
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.local_training.finetune import STEPS
from server.cluster.held_out import curves_of
from server.federation.folder import Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out
from tests.support.attacks import Attack, flipped, in_league, labels_permuted, noise, stretched
from tests.support.liars import with_liars

ROUNDS = 3
NOBODY = "nobody"
SHUFFLED = "labels shuffled"
ATTACKS: Mapping[str, Attack] = {
    "sign flipped": flipped,
    "update x 10": stretched,
    "noise of the same length": noise,
    "outputs permuted": labels_permuted,
    "collusion": in_league,
}
SHARES = (0.1, 0.3)
ANY_RELEASE = (
    "gate.min_explained=-1e9",
    "gate.min_conditioning=-1e9",
    "gate.min_dispersion=0",
    "gate.max_dispersion=1e9",
    "gate.max_drift=1e9",
)
OFF = (
    "admission.minimum=1000000",
    "admission.times=1e30",
    "admission.against=-1",
    "admission.copy=1e-12",
    "admission.alike=1",
)
"""Limits that nothing reaches; what is rejected for good stays rejected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One federation."""

    seed: int
    attack: str
    share: float
    admission: bool

    def __str__(self) -> str:
        return f"{self.attack}, {self.share:.0%}, {'on' if self.admission else 'off'}"


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a federation: (sites, steps) accuracies, and shares of submissions."""

    accuracy: list[list[float]]
    let_in: float
    used: float
    lost: int


def kept(
    row: Row, folder: Path | None, sites: int, held_out: int, data: str, scenario: str, *more: Any
) -> Found:
    """The result in the folder, or else that of `job`, which is kept there."""
    name = f"{scenario}, {data}, {row.seed}, {row}.json"
    path = folder / name if folder is not None else None
    if path is not None and path.exists():
        return Found(**json.loads(path.read_text()))
    found = job(row, sites, held_out, data, scenario, *more)
    if path is not None:
        write_atomically(path, json.dumps(asdict(found)))
    return found


def job(
    row: Row, sites: int, held_out: int, data: str, scenario: str, settings: Sequence[str]
) -> Found:
    """Runs a federation and measures its last release."""
    overrides = (*settings, *ANY_RELEASE, *(() if row.admission else OFF))
    laid = laid_out(row.seed, sites, held_out, data, overrides, scenario=scenario)
    with laid as (federation, divided):
        names = [site.name for site in divided.sites]
        rng = np.random.default_rng(row.seed)
        byzantine = set(rng.choice(names, round(row.share * sites), replace=False).tolist())
        if row.attack == SHUFFLED:
            for name in sorted(byzantine):
                _shuffle_labels(federation.root / "sites" / name / "train.npz", rng)
        attackers = dict.fromkeys(byzantine, ATTACKS[row.attack]) if row.attack in ATTACKS else {}
        with_liars(federation, attackers).run(ROUNDS, sites)
        parts = held_out_sites(divided)
        measured = [site for some in parts.values() for site in some or ()]
        release = federation.releases.measured()
        curves = curves_of(federation.root, release.id, measured, (GENERATED,))
        return Found([curves[s.name][GENERATED] for s in measured], *_shares(federation, byzantine))


def _shuffle_labels(path: Path, rng: np.random.Generator) -> None:
    dataset = load_dataset(str(path))
    save_npz(path, dataset.x, rng.permutation(dataset.y))


def _shares(federation: Federation, byzantine: set[str]) -> tuple[float, float, int]:
    release = federation.releases.measured()
    records = federation.zoo.snapshot().records()
    stored = {(record.site, record.round) for record in records}
    let_in = sum(site in byzantine for site, _ in stored)
    used = sum(site in byzantine for site in release.sites) / len(release.sites)
    honest = len(list((federation.root / "sites").iterdir())) - len(byzantine)
    lost = honest * ROUNDS - (len(stored) - let_in)
    return let_in / max(1, ROUNDS * len(byzantine)), used, lost


def rows_of(seeds: int, attacks: Sequence[str], shares: Sequence[float]) -> list[Row]:
    """All federations to run."""
    return [
        Row(seed, attack, share, admission)
        for seed in range(seeds)
        for attack, share in [(NOBODY, 0.0), *((a, s) for a in attacks for s in shares)]
        for admission in (True, False)
    ]


def compared(found: Mapping[Row, Found]) -> dict[str, dict[str, object]]:
    """Over seeds: accuracies next to the clean run with admission off, and shares."""
    tables: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(map(str, found)):
        mine = [row for row in found if str(row) == name]
        ours = _stacked(found[row].accuracy for row in mine)
        clean = _stacked(found[Row(row.seed, NOBODY, 0.0, False)].accuracy for row in mine)
        tables[name] = {
            **paired(ours, clean),
            "let_in": sum(found[row].let_in for row in mine) / len(mine),
            "used": sum(found[row].used for row in mine) / len(mine),
            "lost": sum(found[row].lost for row in mine),
        }
    return tables


def _stacked(parts: object) -> torch.Tensor:
    return torch.tensor([site for part in parts for site in part], dtype=torch.float64)


def main() -> None:
    """Runs every federation, prints a table, and writes the figures if asked to."""
    every = (*ATTACKS, SHUFFLED)
    asked = options(__doc__ or "", seeds=3, kept=True, scenario=True, attacks=every)
    sites, held_out, settings = (40, 10, ())
    attacks: Sequence[str] = asked.attack or every
    shares: Sequence[float] = SHARES
    if asked.quick:
        sites, held_out, settings = 20, 8, ("target.name=mlp", "first.steps=40", "flow.steps=60")
        attacks, shares = ("sign flipped", SHUFFLED), (0.3,)
        asked.seeds, asked.data = 1, "digits"
        settings = (*settings, *SMALL)
    rows = rows_of(asked.seeds, attacks, shares)
    folder = asked.kept
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    more = (folder, sites, held_out, asked.data, asked.scenario, settings)
    results = side_by_side(kept, [(row, *more) for row in rows])
    tables = compared(dict(zip(rows, results, strict=True)))
    print(f"accuracy as generated and after {STEPS[-1]} steps, and points lost to the clean run")
    print(f"{'attack':38}{'start':>8}{'lost':>15}{'tuned':>8}{'lost':>15}  let in   used  lost")
    for name, row in tables.items():
        cells = ""
        for step in (0, -1):
            points, half = -100 * row["difference"][step], 100 * row["ci95"][step]
            cells += f"{row['accuracy'][step]:8.3f}{points:9.1f} ±{half:4.1f}"
        print(f"{name:38}{cells}{row['let_in']:8.0%}{row['used']:7.0%}{row['lost']:6}")
    write_json(asked.json, {"steps": list(STEPS), "seeds": asked.seeds, "rows": tables})


SMALL = (
    "split.shots=20",
    "split.held_out_shots=5",
    "split.test_per_class=10",
    "split.validation_per_class=5",
    "probe.episodes=2",
)


if __name__ == "__main__":
    main()
