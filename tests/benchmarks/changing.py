"""A federation that changes, beside the same one in which nobody does.

`python -m tests.benchmarks.changing [--scenario changing|changing-few-shot] [--first SEED]
[--seeds N] [--rounds N] [--sites N] [--data NAME] [--json FILE]`. Both have the same sites with the
same examples at the beginning; in the one that does not change those that would join are there from
the first round on. What counts is what the sites get that never change, round by round and paired.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from f2l_fed.config import load_config
from f2l_fed.data import Partition
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.summary import half_width
from server.cluster.held_out import curves_of
from server.federation.folder import Federation
from server.rounds.state import RoundState
from server.simulation.changes import changing_rounds
from server.simulation.setup import Simulation, held_out_sites, prepare
from server.simulation.training_sites import own_accuracies, training_accuracy
from tests.benchmarks.common import SEPARATE, side_by_side, write_json
from tests.support.inline import conductor

_HELD_OUT = 20


def job(
    seed: int, scenario: str, data: str, sites: int, rounds: int, changes: bool
) -> dict[str, Any]:
    """The accuracies of one federation, by site and round."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            data=tuple(data.split(",")),
            scenario=scenario,
            sites=sites,
            held_out=_HELD_OUT,
            rounds=rounds,
            out=Path(folder) / "out",
            config=replace(load_config(None, [*SEPARATE, "target.adapt=head"]), seed=seed),
        )
        federation, planned = prepare(simulation, force=False)
        divided = planned if changes else replace(planned, changes=())
        states = _conducted(federation, divided, rounds)
        if any(state.step != "done" for state in states):
            raise SystemExit(f"a round failed: {states[-1].reason}")
        return _found(federation, planned, divided, states)


def _conducted(federation: Federation, divided: Partition, rounds: int) -> list[RoundState]:
    files = [federation.root / "sites" / site.name / "site.toml" for site in divided.sites]
    nodes = {number: site.name for number, site in enumerate(divided.sites, 1)}

    def conduct(names: Any) -> list[RoundState]:
        return conductor(federation, files, names=names).run(1, len(files))

    return changing_rounds(federation, divided, rounds, nodes, federation.events(), conduct)


def _found(
    federation: Federation, planned: Partition, divided: Partition, states: list[RoundState]
) -> dict[str, Any]:
    ever = {change.site.name for change in planned.changes}
    never = sorted({site.name for site in planned.sites} - ever)
    snapshot, by_round = federation.zoo.snapshot(), []
    for state in states[1:]:
        told = {one.site: one.metrics for one in snapshot.records(round=state.number)}
        by_round.append(
            {
                name: [told.get(site, {}).get(name, nan) for site in never]
                for name in ("accuracy_before", "accuracy_after")
            }
        )
    release = federation.releases.measured().id
    there = {site.name: site for site in planned.sites}
    last = own_accuracies(federation, release, [there[site] for site in never])
    by_round.append({"accuracy_after": [last[site] for site in never]})
    held_out = held_out_sites(planned)["seen"] or []
    curves = curves_of(federation.root, release, held_out, [GENERATED])
    return {
        "never": by_round,
        "rows": training_accuracy(federation, divided, states),
        "held_out": [curves[site.name][GENERATED][0] for site in held_out],
        "rejected": [state.number for state in states if not state.promoted],
        "quarantined": [dict(state.quarantined) for state in states],
        "left_out": [dict(federation.releases.read(state.release).left_out) for state in states],
    }


def main() -> None:
    """Runs all seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="changing")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    common = (chosen.scenario, chosen.data, chosen.sites, chosen.rounds)
    found = side_by_side(job, [(seed, *common, one) for seed in seeds for one in (True, False)])
    changing, still = found[::2], found[1::2]
    print("round  never: changing  still  difference   changed  joined")
    for number in range(chosen.rounds):
        ours, base = (
            torch.tensor([one["never"][number]["accuracy_after"] for one in runs]).double()
            for runs in (changing, still)
        )
        apart = (ours - base).flatten()
        apart = apart[apart.isfinite()]
        rows = [one["rows"][number] for one in changing]
        groups = ("changed", "joined")
        shown = [[row[group] for row in rows if row[group] is not None] for group in groups]
        means = [100 * float(one.nanmean()) for one in (ours, base, apart)]
        print(
            f"{number + 1:5d} {means[0]:16.1f} {means[1]:6.1f} {means[2]:6.1f}"
            f" ±{100 * float(half_width(apart)):.1f}"
            + "".join(f"{100 * fmean(one):10.1f}" if one else "         –" for one in shown)
        )
    ours, base = (
        torch.tensor([one["held_out"] for one in runs]).double() for runs in (changing, still)
    )
    print(
        f"held-out sites at zero steps: {100 * float(ours.mean()):.1f}, "
        f"still {100 * float(base.mean()):.1f}"
    )
    for name in ("rejected", "quarantined", "left_out"):
        print(f"{name}: changing {[one[name] for one in changing]}")
        print(f"{name}: still {[one[name] for one in still]}")
    write_json(chosen.json, {"changing": changing, "still": still})


if __name__ == "__main__":
    main()
