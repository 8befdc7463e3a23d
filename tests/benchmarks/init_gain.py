"""Gain of a generated start: accuracy at held-out sites after n local steps, for every arm.

`python -m tests.benchmarks.init_gain [--quick] [--seeds N] [--rounds N] [--sites N] [--shots N …]
[--no-turns] [--json OUT.json] [--plot OUT.svg] [--kept DIR] [--tune]`

The method with a trained body and generated heads, and all baselines of
`f2l_fed.evaluation.baselines`: same sites, network, examples, rounds and local steps a round, and
turned and inverted episodes for all or, with --no-turns, for none. Everything runs in one process a
seed and method, without messages; the method itself by the product's own functions.

The intervals are Student's 95% intervals over sites and seeds together; differences are paired by
site. --tune chooses the baselines' settings instead, on seed 100 and its held-out sites.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from f2l_fed.config import FederationConfig, load_config
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.random_streams import seed_for
from f2l_fed.data import Partition, load_dataset, partition
from f2l_fed.evaluation.arm_names import GENERATED, label
from f2l_fed.evaluation.baselines.baseline import curves
from f2l_fed.evaluation.baselines.registry import BASELINES
from f2l_fed.evaluation.confidence import summarise_confidence
from f2l_fed.evaluation.summary import half_width
from f2l_fed.local_training.finetune import STEPS
from server.cluster.baselines import work_of
from server.simulation.setup import held_out_sites
from tests.benchmarks.baseline_tuning import tune
from tests.benchmarks.common import SEPARATE, side_by_side, write_json
from tests.benchmarks.own_method import (
    cost_of_method,
    curves_of_release,
    release_on,
    trained_body,
)

OURS = "f2l"
"""Key of the method beside those of the baselines."""

DRAWN = {
    "random": "#bbbbbb",
    "fedavg": "#228833",
    "per_fedavg": "#ccbb44",
    "fedper_logistic": "#aa3377",
    "protonet_logistic": "#66ccee",
    "logistic": "#ee6677",
    "generated": "#4477aa",
}
"""Colours of the arms in the plot."""

Curves = dict[str, list[dict[str, list[float]]]]
"""Accuracy by kind of held-out site, site, arm and number of steps."""

Confidence = dict[str, dict[str, dict[str, float]]]
"""Figures of confidence by kind of held-out site and arm, of the method alone."""


def settled(seed: int, turns: bool) -> FederationConfig:
    """The configuration of a seed."""
    config = replace(load_config(None, [*SEPARATE, "target.adapt=head"]), seed=seed)
    return replace(config, episodes=replace(config.episodes, turns=turns, inversion=turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The setting that all methods share.

    Args:
        sites: Training sites.
        held_out: Held-out sites of each kind.
        data: Names of data sets, by commas.
        rounds: Rounds.
        turns: Whether episodes are turned and inverted.
    """

    sites: int
    held_out: int
    data: str
    rounds: int
    turns: bool


def divide(config: FederationConfig, setting: Setting, shots: int) -> Partition:
    """The data; training sites are the same for every number of shots at held-out ones."""
    return partition(
        "few-shot",
        [load_dataset(name) for name in setting.data.split(",")],
        sites=setting.sites,
        held_out=setting.held_out,
        seed=config.seed,
        config=replace(config.split, held_out_shots=shots),
    )


def job(
    method: str, seed: int, setting: Setting, shots: tuple[int, ...], kept: Path | None
) -> tuple[dict[int, Curves], dict[int, Confidence], dict[str, float]]:
    """Curves and confidence of one method and seed by number of shots, and the method's cost.

    Args:
        method: `OURS` or a baseline.
        seed: The seed.
        setting: What both depend on.
        shots: Examples per class at held-out sites.
        kept: A folder of results, which are reused where everything is equal.
    """
    about = {"method": method, "seed": seed, **asdict(setting)}
    if method != OURS:
        about["settings"] = asdict(BASELINES[method].settings)
    name = f"{seed_for(json.dumps(about)):016x}.json"
    known = {"about": about, "cost": {}, "curves": {}, "confidence": {}}
    if kept is not None and (kept / name).exists():
        known = json.loads((kept / name).read_text())
    missing = [few for few in shots if str(few) not in known["curves"]]
    if missing:
        known["cost"], found, sure = measured(method, seed, setting, missing)
        known["curves"] |= {str(few): own for few, own in found.items()}
        known["confidence"] |= {str(few): own for few, own in sure.items()}
        if kept is not None:
            write_atomically(kept / name, json.dumps(known) + "\n")
    own = {few: known["curves"][str(few)] for few in shots}
    sure = {few: known.get("confidence", {}).get(str(few), {}) for few in shots}
    return own, sure, known["cost"]


def measured(
    method: str, seed: int, setting: Setting, shots: Sequence[int]
) -> tuple[dict[str, float], dict[int, Curves], dict[int, Confidence]]:
    """Trains a method once and measures it at held-out sites with each number of shots."""
    config = settled(seed, setting.turns)
    by_shots = {few: divide(config, setting, few) for few in shots}
    work = work_of(config, by_shots[shots[0]], setting.rounds)
    began = time.perf_counter()
    if method == OURS:
        learnt, cost = trained_body(work, config), cost_of_method(work)
    else:
        baseline = BASELINES[method]
        learnt = baseline.train(work, baseline.settings)
        cost = asdict(baseline.cost(work, baseline.settings))
    cost["seconds"] = round(time.perf_counter() - began, 2)
    found: dict[int, Curves] = {few: {} for few in shots}
    sure: dict[int, Confidence] = {few: {} for few in shots}
    for few, divided in by_shots.items():
        if method == OURS:
            release = release_on(work, config, learnt, few)
        for kind, held in held_out_sites(divided).items():
            if method == OURS:
                both = [curves_of_release(work, release, site) for site in held or ()]
                found[few][kind] = [own for own, _ in both]
                sure[few][kind] = summarise_confidence([own for _, own in both]) if both else {}
                continue
            starts = [
                (baseline.starts(work, baseline.settings, learnt, site), site)
                for site in held or ()
            ]
            found[few][kind] = [curves(baseline, work, own, site) for own, site in starts]
    return cost, found, sure


def compared(parts: list[Curves], kind: str) -> dict[str, Any]:
    """All arms at one kind of site, over seeds, each with its difference to the generated start.

    Args:
        parts: One for each seed, with the arms of all methods at every site.
        kind: The kind of site.
    """
    curves = [curve for part in parts for curve in part[kind]]
    table = {
        arm: torch.tensor([curve[arm] for curve in curves], dtype=torch.float64)
        for arm in curves[0]
    }
    rows = {}
    for arm, values in table.items():
        lead = table[GENERATED] - values
        means = torch.stack([part.mean(0) for part in values.chunk(len(parts))])
        rows[arm] = {
            "accuracy": values.mean(0).tolist(),
            "ci95": half_width(values).tolist(),
            "spread": means.std(0, correction=0).tolist(),
            "generated_leads_by": lead.mean(0).tolist(),
            "lead_ci95": half_width(lead).tolist(),
        }
    return {"steps": list(STEPS), "arms": rows}


def show(title: str, part: dict[str, Any]) -> None:
    """Prints one part, in percent."""
    steps = part["steps"]
    columns = [steps.index(0), steps.index(20)]
    print(f"\n{title}")
    print(f"{'start':<15}" + "".join(f"{f'{n}':>7}" for n in steps), end="")
    print("".join(f"{f'generated leads at {steps[c]}':>23}" for c in columns) + "   least")
    for arm, row in part["arms"].items():
        print(f"{label(arm):<15}" + "".join(f"{100 * a:7.1f}" for a in row["accuracy"]), end="")
        for c in columns:
            lead, error = row["generated_leads_by"][c], row["lead_ci95"][c]
            print(f"{f'{100 * lead:+.1f} ±{100 * error:.1f}':>23}", end="")
        print(f"{100 * min(row['generated_leads_by']):+8.1f}")


def show_confidence(title: str, seeds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Prints the mean over seeds of the figures of confidence, and returns it by arm."""
    print(f"\n{title}\n{'start':<15}{'loss':>8}{'calibration error':>19}{'surest 80% right':>18}")
    found = {}
    for arm in seeds[0]:
        found[arm] = row = {
            key: sum(own[arm][key] for own in seeds) / len(seeds) for key in seeds[0][arm]
        }
        error, sure = 100 * row["calibration_error"], 100 * row["accuracy_at_80"]
        print(f"{label(arm):<15}{row['loss']:8.3f}{error:19.1f}{sure:18.1f}")
    return found


def merged(found: list[dict[int, Curves]], few: int) -> Curves:
    """The arms of all methods at every site of one seed."""
    kinds = found[0][few]
    return {
        kind: [
            {arm: row for one in together for arm, row in one.items()}
            for together in zip(*(part[few][kind] for part in found), strict=True)
        ]
        for kind in kinds
    }


def plot(title: str, parts: dict[str, Any], path: Path) -> None:
    """Draws accuracy against local steps for each kind of site, with the 95% intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle(title)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("seen", "unseen"), strict=True):
        axes.set_title(f"{kind} classes")
        axes.set_xlabel("local gradient steps")
        axes.set_xscale("symlog", linthresh=1)
        steps = parts[kind]["steps"]
        axes.set_xticks(steps, [str(n) for n in steps])
        for arm, colour in DRAWN.items():
            row = parts[kind]["arms"][arm]
            name = label(arm)
            axes.errorbar(steps, row["accuracy"], row["ci95"], label=name, color=colour, marker=".")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path)
    print(f"plot in {path}")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--rounds", type=int, default=8, help="number of rounds")
    parser.add_argument("--sites", type=int, default=40, help="training sites")
    parser.add_argument("--shots", type=int, nargs="+", default=[5], help="examples per class")
    parser.add_argument("--no-turns", action="store_true", help="neither turn nor invert episodes")
    parser.add_argument("--data", default="mnist5k,fashion-mnist", help="data sets, by commas")
    parser.add_argument("--tune", action="store_true", help="choose the baselines' settings")
    parser.add_argument("--only", nargs="+", choices=BASELINES, help="baselines to run or tune")
    parser.add_argument("--kept", type=Path, help="keep and reuse results in this folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the figures, .svg or .png")
    return parser.parse_args()


def main() -> None:
    """Runs all jobs and prints a table for each number of shots and kind of site."""
    chosen = options()
    seeds = 1 if chosen.quick else chosen.seeds
    sites, held_out, rounds = (8, 4, 3) if chosen.quick else (chosen.sites, 30, chosen.rounds)
    shots, turns = tuple(chosen.shots), not chosen.no_turns
    names = chosen.only or list(BASELINES)
    setting = Setting(sites=sites, held_out=held_out, data=chosen.data, rounds=rounds, turns=turns)
    if chosen.tune:
        config = settled(100, turns)
        divided = divide(config, setting, shots[0])
        write_json(chosen.json, {"tuning": tune(config, divided, rounds, names)})
        return
    if chosen.kept:
        chosen.kept.mkdir(parents=True, exist_ok=True)
    methods = [OURS, *names]
    keys = [(method, seed) for method in methods for seed in range(seeds)]
    jobs = [(*key, setting, shots, chosen.kept) for key in keys]
    done = dict(zip(keys, side_by_side(job, jobs), strict=True))
    figures: dict[str, Any] = {
        "seeds": seeds,
        "setting": asdict(setting),
        "costs": {
            method: {
                key: sum(done[method, seed][2][key] for seed in range(seeds)) / seeds
                for key in done[method, 0][2]
            }
            for method in methods
        },
        "held_out": {},
        "confidence": {},
    }
    for few in shots:
        parts = [
            merged([done[method, seed][0] for method in methods], few) for seed in range(seeds)
        ]
        title = f"{sites} training sites, {few} shots, after {rounds} rounds"
        figures["held_out"][title] = both = {kind: compared(parts, kind) for kind in parts[0]}
        for kind, part in both.items():
            show(f"{title}, {kind} classes", part)
        sure = [done[OURS, seed][1][few] for seed in range(seeds)]
        figures["confidence"][title] = {
            kind: show_confidence(f"{title}, {kind} classes, at 0 steps", [s[kind] for s in sure])
            for kind in sure[0]
        }
        if chosen.plot and few == shots[0]:
            plot(title, both, chosen.plot)
    print(f"\n{'method':<12}{'bytes up':>10}{'bytes down':>12}{'local steps':>13}{'seconds':>9}")
    for method, cost in figures["costs"].items():
        print(
            f"{method:<12}{cost['bytes_up']:>10.0f}{cost['bytes_down']:>12.0f}"
            f"{cost['local_steps']:>13.0f}{cost['seconds']:>9.1f}"
        )
    write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
