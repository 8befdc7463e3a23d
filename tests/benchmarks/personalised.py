"""Personalised accuracy with shared labels: every training site's own network after each round.

`python -m tests.benchmarks.personalised [--scenario dirichlet|camera|natural] [--seeds N]
[--rounds N] [--sites N] [--only METHOD …] [--no-own] [--tune] [--quick] [--json OUT.json]
[--kept DIR]`

The protocol of PFLlib: 20 sites with Dirichlet(0.1) label skew, a quarter of each site's examples
for testing, accuracy weighted by test examples (and the plain mean over sites). All methods have
the same sites, network, examples and rounds; a round has one local epoch (two for FedRep and
Ditto). Everything runs in one process a seed and method, without messages, but for our own method:
that is the product's rounds with its real apps.

`+ 5 epochs` are local epochs from what a site has after a round, with a learning rate that falls to
zero; the result serves the site alone. --tune tries six settings of each method instead, on seeds
100 and on; see `tests.benchmarks.personalised_methods`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.random_streams import seed_for
from f2l_fed.evaluation.arm_names import THIS_FEDERATION as OWN
from f2l_fed.evaluation.baselines.personalised.accuracy import (
    PersonalisedAccuracy,
    personalised_accuracy,
)
from f2l_fed.evaluation.baselines.personalised.method import (
    PersonalisedBaseline,
    cost_of_baseline,
    measured_rounds,
)
from f2l_fed.evaluation.baselines.personalised.own_networks import own_networks
from f2l_fed.evaluation.summary import half_width
from server.cluster.personalised import own_examples_of
from tests.benchmarks.common import side_by_side, write_json
from tests.benchmarks.personalised_data import Setting, divide, work_of
from tests.benchmarks.personalised_methods import METHODS, name_of, tried
from tests.benchmarks.personalised_own import own_rounds

TUNED_AT = (3, 10)
FIRST_TUNING_SEED = 100

Measured = dict[str, Any]
"""Accuracies by round, as lists "sites" and "examples", and the cost of one method and seed."""


def job(method: str, seed: int, setting: Setting, kept: Path | None) -> Measured:
    """One method and seed; reused from a folder of results where everything is equal."""
    about = {"method": method, "seed": seed, **asdict(setting)}
    if method != OWN:
        about["settings"] = asdict(METHODS[method].settings)
    path = kept / f"{seed_for(json.dumps(about)):016x}.json" if kept else None
    if path is not None and path.exists():
        return json.loads(path.read_text())["measured"]
    found = own_rounds(setting, seed) if method == OWN else measured(METHODS[method], setting, seed)
    if path is not None:
        write_atomically(path, json.dumps({"about": about, "measured": found}) + "\n")
    return found


def measured(baseline: PersonalisedBaseline, setting: Setting, seed: int) -> Measured:
    """Trains a baseline and measures its sites."""
    divided = divide(setting, seed)
    work, tests = work_of(divided, setting, seed), own_examples_of(divided)
    rounds, seconds, began = {}, 0.0, time.process_time()
    for number, networks in own_networks(baseline, work):
        seconds += time.process_time() - began
        rounds[str(number)] = asdict(personalised_accuracy(work.network, networks, tests))
        began = time.process_time()
    cost = {**asdict(cost_of_baseline(baseline, work)), "cpu_seconds": round(seconds, 2)}
    return {"rounds": rounds, "cost": cost}


def tried_setting(baseline: PersonalisedBaseline, setting: Setting, seed: int) -> list[float]:
    """Weighted accuracy of a baseline in the measured rounds."""
    return list(weighted_and_plain(measured(baseline, setting, seed))["weighted"])


def weighted_and_plain(found: Measured) -> dict[str, list[float]]:
    """Both means of one method and seed by measured round."""
    rounds = [PersonalisedAccuracy(**one) for one in found["rounds"].values()]
    return {
        "weighted": [one.weighted for one in rounds],
        "plain": [one.plain for one in rounds],
    }


def summary(by_method: dict[str, list[Measured]]) -> dict[str, Any]:
    """Means over seeds, their spread, and the lead of our own method paired by seed."""
    rows: dict[str, Any] = {}
    means = {
        method: {
            kind: torch.tensor([weighted_and_plain(one)[kind] for one in found]).double()
            for kind in ("weighted", "plain")
        }
        for method, found in by_method.items()
    }
    for method, found in by_method.items():
        own = means[method]
        rows[method] = {
            "weighted": own["weighted"].mean(0).tolist(),
            "spread": own["weighted"].std(0, correction=0).tolist(),
            "plain": own["plain"].mean(0).tolist(),
            "cost": {name: fmean(one["cost"][name] for one in found) for name in found[0]["cost"]},
        }
        if OWN in means:
            lead = means[OWN]["weighted"] - own["weighted"]
            rows[method]["own_leads_by"] = lead.mean(0).tolist()
            rows[method]["lead_ci95"] = half_width(lead).tolist()
    return rows


def show(rows: dict[str, Any], setting: Setting, seeds: int) -> None:
    """Prints the table, in percent."""
    print(f"\n{setting.scenario}, {setting.sites} sites, {seeds} seeds: weighted by test examples")
    rounds = "".join(f"{f'round {number}':>12}" for number in setting.measured)
    costs = f"{'plain':>8}{'bytes up':>10}{'steps':>7}{'+ own':>7}{'CPU s':>8}"
    print(f"{'method':<15}{rounds}{costs}")
    for method, row in rows.items():
        both = zip(row["weighted"], row["spread"], strict=True)
        figures = "".join(f"{f'{100 * mean:.1f} ±{100 * spread:.1f}':>12}" for mean, spread in both)
        cost = row["cost"]
        print(
            f"{name_of(method):<15}{figures}{100 * row['plain'][-1]:>8.1f}"
            f"{cost['bytes_up']:>10.0f}{cost['steps']:>7.0f}{cost['own_steps']:>7.0f}"
            f"{cost['cpu_seconds']:>8.1f}"
        )
    print("± is the standard deviation over seeds; plain is the mean over sites in the last round.")


def tune(setting: Setting, seeds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """All settings that were tried, best first within a method."""
    candidates = [baseline for name in names for baseline in tried(name)]
    jobs = [
        (baseline, setting, FIRST_TUNING_SEED + seed)
        for baseline in candidates
        for seed in range(seeds)
    ]
    done = torch.tensor(side_by_side(tried_setting, jobs)).view(len(candidates), seeds, -1).mean(1)
    rows = [
        {
            "method": baseline.key,
            "settings": asdict(baseline.settings),
            "weighted": found.tolist(),
            "mean": float(found.mean()),
        }
        for baseline, found in zip(candidates, done, strict=True)
    ]
    rows.sort(key=lambda row: (names.index(row["method"]), -row["mean"]))
    for row in rows:
        told = ", ".join(f"{name} {value:g}" for name, value in row["settings"].items())
        figures = " / ".join(f"{100 * value:.1f}" for value in row["weighted"])
        print(f"{row['method']:<20} {figures}   {told}")
    return rows


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--rounds", type=int, default=17, help="number of rounds")
    parser.add_argument("--sites", type=int, default=20, help="training sites")
    parser.add_argument("--examples", type=int, default=1500, help="examples of a class; 0: all")
    names = ("dirichlet", "camera", "natural")
    parser.add_argument("--scenario", choices=names, default="dirichlet")
    parser.add_argument("--data", help="data set (default: fashion-mnist; vowel where natural)")
    parser.add_argument("--only", nargs="+", choices=METHODS, help="baselines to run or tune")
    parser.add_argument("--no-own", action="store_true", help="leave our own method out")
    parser.add_argument("--tune", action="store_true", help="try the baselines' settings")
    parser.add_argument("--kept", type=Path, help="keep and reuse results in this folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def setting_of(chosen: argparse.Namespace) -> Setting:
    """The setting that the command line asks for."""
    natural = chosen.scenario == "natural"
    rounds = 10 if chosen.tune else 3 if chosen.quick else chosen.rounds
    return Setting(
        scenario=chosen.scenario,
        data=chosen.data or ("vowel" if natural else "fashion-mnist"),
        examples=0 if natural else 400 if chosen.quick else chosen.examples,
        sites=6 if chosen.quick else chosen.sites,
        rounds=rounds,
        measured=TUNED_AT if chosen.tune else measured_rounds(rounds),
    )


def main() -> None:
    """Runs all jobs and prints the table."""
    chosen = options()
    setting, seeds = setting_of(chosen), 1 if chosen.quick else chosen.seeds
    names = chosen.only or list(METHODS)
    if chosen.tune:
        found = tune(setting, seeds, names)
        write_json(chosen.json, {"setting": asdict(setting), "seeds": seeds, "tuning": found})
        return
    if chosen.kept:
        chosen.kept.mkdir(parents=True, exist_ok=True)
    methods = names if chosen.no_own else [OWN, *names]
    keys = [(method, seed) for seed in range(seeds) for method in methods]
    jobs = [(*key, setting, chosen.kept) for key in keys]
    done = dict(zip(keys, side_by_side(job, jobs), strict=True))
    rows = summary({method: [done[method, seed] for seed in range(seeds)] for method in methods})
    show(rows, setting, seeds)
    write_json(chosen.json, {"setting": asdict(setting), "seeds": seeds, "methods": rows})


if __name__ == "__main__":
    main()
