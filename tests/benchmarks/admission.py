"""Detection and false alarms of admission, on recorded rounds with attacks.

`python -m tests.benchmarks.admission [--quick] [--seeds N] [--json OUT.json] [--recorded DIR]`

Real rounds are recorded: the submissions of honest sites, with their tasks, in rounds 1 to 4 of
a few-shot federation (every site numbers its labels as it likes) and of a Dirichlet one (shared
labels, very unequal sites). Then the same rounds are screened in the order in which answers came,
once unchanged and once for every attack with 10% and 30% Byzantine sites in every round.
The starts of later rounds are those of the honest run.

``at once`` is the share of bad submissions that `Screen.judge` did not let in as they were (clip,
quarantine or reject), ``in all`` adds those that `review_cohort` finds at the end of the round. A
false alarm is an honest submission that is kept out of zoo or retraining, by either; ``clipped`` is
the share of honest ones let in shortened. Limits were chosen by looking at seeds 0, 1, 100
and 101, so the first seed here is 2. With ``--recorded`` recorded rounds are kept in a folder and
used again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import torch

from f2l_fed.admission import AdmissionConfig, History, Screen, Submission, review_cohort
from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.targets import Target, build_target
from server.simulation.setup import Simulation, prepare
from tests.benchmarks.common import SEPARATE_SPLIT, side_by_side, write_json
from tests.support.attacks import ATTACKS, HARD
from tests.support.recorded import load, recorded_rounds, save

SCENARIOS = {"few-shot": "mnist5k", "dirichlet": "digits"}
SHARES = (0.1, 0.3)
FIRST_SEED = 2
HONEST = "none"
EVERY = {**ATTACKS, **HARD}


@dataclass
class Tally:
    """Counts over submissions."""

    bad: int = 0
    at_once: int = 0
    in_all: int = 0
    honest: int = 0
    alarms: int = 0
    clipped: int = 0

    def add(self, other: Tally) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def record(scenario: str, seed: int, sites: int, rounds: int, kept: Path | None) -> Path:
    """Records a federation's submissions; an existing file is used again."""
    folder = kept or Path(tempfile.mkdtemp())
    path = folder / f"{scenario}-{seed}-{sites}-{rounds}.pt"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        simulation = Simulation(
            data=(SCENARIOS[scenario],),
            scenario=scenario,
            sites=sites,
            held_out=2,
            rounds=rounds,
            out=Path(scratch) / "out",
            config=replace(FederationConfig(), seed=seed, split=SEPARATE_SPLIT),
        )
        federation, _ = prepare(simulation, force=False)
        found = recorded_rounds(federation, rounds)
        shape = federation.config.target
    save(found, path)
    about = torch.tensor([*shape.input_shape, shape.classes])
    torch.save(about, path.with_suffix(".shape"))
    return path


def target_of(path: Path) -> Target:
    """The network of recorded rounds."""
    *shape, classes = torch.load(path.with_suffix(".shape"), weights_only=True).tolist()
    return build_target(FederationConfig().target.name, tuple(shape), classes)


def byzantine(sites: Sequence[Submission], share: float) -> set[str]:
    """Names of Byzantine sites, evenly spread over the order of arrival, never the first."""
    count = round(share * len(sites))
    return {sites[1 + int((i + 0.5) * (len(sites) - 1) / count)].site for i in range(count)}


def screened(
    path: Path, seed: int, attack: str, share: float
) -> tuple[list[Tally], Counter[str], list[str], float]:
    """Screens recorded rounds with some Byzantine sites.

    Returns:
        A tally for each round, findings on Byzantine sites, honest sites kept out with the
        reason, and CPU seconds for one submission.
    """
    torch.set_num_threads(1)
    rounds, target = load(path), target_of(path)
    config, lineage = AdmissionConfig(), f"admission/{seed}"
    screen = Screen.of(target, lineage, len(rounds[0][0].probes), config)
    history, tallies, codes, held_back, spent = History(), [], Counter[str](), list[str](), 0.0
    for number, honest in enumerate(rounds, 1):
        rng = generator_for(lineage, attack, number)
        bad = set() if attack == HONEST else byzantine(honest, share)
        verdicts = {}
        for one in honest:
            sent = EVERY[attack](one, honest, target, rng) if one.site in bad else one
            start = process_time()
            judged = screen.judge(sent, history, len(honest))
            spent += process_time() - start
            history, verdicts[one.site] = judged.history, judged.verdict
        history, later = review_cohort(history, honest[0].id.kind, config)
        tally = Tally(bad=len(bad), honest=len(honest) - len(bad))
        for site, verdict in verdicts.items():
            caught = verdict.action != "accept"
            found = caught or site in later
            if site in bad:
                tally.at_once += caught
                tally.in_all += found
                codes[(verdict if caught else later[site]).code if found else "missed"] += 1
            elif found:
                kept_out = not verdict.admitted or site in later
                tally.alarms += kept_out
                tally.clipped += not kept_out
                why = verdict if caught else later[site]
                held_back.append(f"round {number}, {site}: {why.action}, {why.reason}")
        tallies.append(tally)
    return tallies, codes, held_back, spent / sum(len(round) for round in rounds)


def measured(scenario: str, seed: int, sites: int, rounds: int, kept: Path | None) -> Any:
    """Results of one seed of a scenario, by attack and share."""
    path = record(scenario, seed, sites, rounds, kept)
    plans = [(HONEST, 0.0), *((attack, share) for attack in EVERY for share in SHARES)]
    return {plan: screened(path, seed, *plan) for plan in plans}


def summed(parts: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Rates of a scenario over its seeds."""
    figures: dict[str, Any] = {}
    for attack, share in parts[0]:
        total, codes, by_round = (
            Tally(),
            Counter[str](),
            [Tally() for _ in parts[0][HONEST, 0.0][0]],
        )
        for part in parts:
            tallies, found, _, _ = part[attack, share]
            codes += found
            for sum_, tally in zip(by_round, tallies, strict=True):
                sum_.add(tally)
                total.add(tally)
        seeds = []
        for part in parts:
            own = Tally()
            for tally in part[attack, share][0]:
                own.add(tally)
            seeds.append({"in_all": rate(own.in_all, own.bad), "alarms": own.alarms / own.honest})
        figures[f"{attack} {share:.0%}"] = {
            "bad": total.bad,
            "caught_at_once": rate(total.at_once, total.bad),
            "caught_in_all": rate(total.in_all, total.bad),
            "honest": total.honest,
            "false_alarms": total.alarms / total.honest,
            "clipped": total.clipped / total.honest,
            "by_round": [
                {"caught_in_all": rate(t.in_all, t.bad), "false_alarms": t.alarms / t.honest}
                for t in by_round
            ],
            "by_seed": seeds,
            "reasons": dict(codes.most_common()),
        }
    return figures


def rate(some: int, of: int) -> float:
    """A share; 1 for none of none."""
    return some / of if of else 1.0


def show(scenario: str, figures: Mapping[str, Any]) -> None:
    """The table of a scenario."""
    heads = f"{'at once':>9}{'in all':>8}{'least seed':>12}{'alarms':>8}{'clipped':>9}"
    print(f"\n{scenario:<34}{heads}  reasons")
    for name, row in figures.items():
        reasons = ", ".join(f"{code} {count}" for code, count in row["reasons"].items())
        least = min(seed["in_all"] for seed in row["by_seed"])
        caught = (
            f"{100 * row['caught_at_once']:>8.1f}%{100 * row['caught_in_all']:>7.1f}%"
            f"{100 * least:>11.1f}%"
            if row["bad"]
            else f"{'':>28}"
        )
        print(f"{name:<34}{caught}{100 * row['false_alarms']:>7.2f}%", end="")
        print(f"{100 * row['clipped']:>8.2f}%  {reasons}")
    honest = next(iter(figures.values()))
    rounds = ", ".join(f"{100 * r['false_alarms']:.2f}%" for r in honest["by_round"])
    print(f"false alarms without attack, by round: {rounds} of {honest['honest']} submissions")


def recordings(description: str) -> tuple[argparse.Namespace, list[tuple[Any, ...]]]:
    """--quick, --seeds, --json and --recorded, and what `record` is to be given for them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--recorded", type=Path, help="keep and reuse recorded rounds in this folder"
    )
    chosen = parser.parse_args()
    seeds, sites, rounds = (1, 12, 2) if chosen.quick else (chosen.seeds, 40, 4)
    return chosen, [
        (scenario, seed, sites, rounds, chosen.recorded)
        for scenario in SCENARIOS
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]


def main() -> None:
    """Records, screens and prints the tables."""
    chosen, jobs = recordings(__doc__ or "")
    _, _, sites, rounds, _ = jobs[0]
    seeds = len(jobs) // len(SCENARIOS)
    parts = side_by_side(measured, jobs)
    figures: dict[str, Any] = {}
    for index, scenario in enumerate(SCENARIOS):
        mine = parts[index * seeds : (index + 1) * seeds]
        figures[scenario] = summed(mine)
        show(scenario, figures[scenario])
        alarms = [line for part in mine for line in part[HONEST, 0.0][2]]
        print("\n".join(alarms))
        milliseconds = 1e3 * sum(part[HONEST, 0.0][3] for part in mine) / len(mine)
        figures[scenario]["milliseconds"] = milliseconds
        print(f"{milliseconds:.1f} ms of CPU for one submission")
    write_json(chosen.json, {"sites": sites, "rounds": rounds, "scenarios": figures})


if __name__ == "__main__":
    main()
