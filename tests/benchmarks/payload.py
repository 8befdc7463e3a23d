"""Bytes of a site and round, and accuracy at new sites, with coded arrays and without.

`python -m tests.benchmarks.payload [--quick] [--seeds N] [--json OUT.json]`

The same federations in one process, with all messages: a body with heads, and a shared network.
Bytes are those of arrays and numbers of the last round, up and down, beside the number of
parameters of the whole network; accuracy is that of the generated start at held-out sites of seen
classes after 0 and 20 local steps, as a mean over the seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import measure, starts
from server.rounds.protocols import UnregisteredSites
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "body and heads": ("few-shot", ("target.adapt=head",)),
    "shared network": ("dirichlet", ("target.adapt=head",)),
}
GATE = (
    "flow.steps=50",
    "flow.width=32",
    "gate.min_explained=-100",
    "gate.min_dispersion=0",
    "gate.max_dispersion=100",
)


def measured(
    scenario: str, overrides: tuple[str, ...], seed: int, sites: int, rounds: int, coded: bool
) -> dict[str, float]:
    """Bytes by parameter, and accuracy, of one federation."""
    with (
        patch.object(UnregisteredSites, "coded", coded),
        laid_out(seed, sites, 10, "digits", (*overrides, *GATE), scenario=scenario) as found,
    ):
        federation, divided = found
        state = run_inline(federation, rounds)[-1]
        size = (federation.body.network if federation.body else federation.target).layout.size
        release = promoted(federation)
        curves = [
            measure(
                federation.body.network if federation.body else federation.target,
                {GENERATED: starts(release, site)[GENERATED]},
                site,
                federation.config.local,
                federation.config.lineage,
            )[GENERATED]
            for some in held_out_sites(divided).values()
            for site in some or ()
        ]
    return {
        "up": state.bytes_up / state.sites / size,
        "down": state.bytes_down / state.sites / size,
        "accuracy_0": 100 * fmean(curve[0] for curve in curves),
        "accuracy_20": 100 * fmean(curve[-1] for curve in curves),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, 8 sites, 2 rounds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sites", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.sites, asked.rounds = 1, 8, 2
    rows: list[dict[str, Any]] = []
    for kind in asked.only:
        for coded in (False, True):
            found = [
                measured(*KINDS[kind], seed, asked.sites, asked.rounds, coded)
                for seed in range(asked.seeds)
            ]
            means = {key: round(fmean(one[key] for one in found), 2) for key in found[0]}
            rows.append({"federation": kind, "coded": coded} | means)
            print(rows[-1], flush=True)
    write_json(asked.json, {"seeds": asked.seeds, "sites": asked.sites, "rows": rows})


if __name__ == "__main__":
    main()
