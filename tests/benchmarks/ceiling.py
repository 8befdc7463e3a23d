"""The ceiling of the network itself: the same held-out sites with ten times their examples.

`python -m tests.benchmarks.ceiling [--quick] [--seeds N] [--json OUT.json]`

A generated start is made from 5 examples per class. Here the held-out sites have 50, train the
same network on all of them, and are measured on their test examples: from a random start and
from the anchor, with the recipe of a first round; from the start generated from 5 examples per
class, with that of a later round. For comparison, the first 5 examples per class alone. In the
last columns each network goes through the codec of the promoted release, which never saw it, and
the round trip is its accuracy over that of the original. Federations of 40 sites after six
rounds; Student's 95% intervals over the sites of all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease
from f2l_fed.evaluation.summary import half_width
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.probe import support_set
from f2l_fed.local_training.selection import select
from server.federation.folder import Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

SHOTS = 50

Row = dict[str, tuple[float, float]]
"""Accuracy of a network and of its copy through the codec, by how the network was made."""


def job(seed: int, sites: int, held_out: int, rounds: int, data: str) -> dict[str, list[Row]]:
    """One row for every held-out site, by kind."""
    overrides = (f"split.held_out_shots={SHOTS}",)
    with laid_out(seed, sites, held_out, data, overrides) as (federation, divided):
        run_inline(federation, rounds)
        release = promoted(federation)
        return {
            kind: [_row(release, _networks(federation, release, site), site) for site in some or ()]
            for kind, some in held_out_sites(divided).items()
        }


def _networks(
    federation: Federation, release: ServedRelease, site: HeldOutSite
) -> dict[str, Tensor]:
    config, target, generator = federation.config, release.target, release.generator
    x, y = site.train
    few = support_set(y, config.probe.shots, generator_for(config.lineage, site.name, "probe"))
    context = release.context(site)
    offered = release.candidates_of(site, context, generator.expect(context[None])[0])
    generated = select(target, offered, x[few], y[few], keep=config.candidates.keep)[1]
    random = target.initialise(generator_for(config.lineage, site.name, "random"))

    def trained(start: Tensor, rows: Tensor | slice, recipe: Recipe) -> Tensor:
        rng = generator_for(config.lineage, site.name, "local")
        return finetune(target, start, x[rows], y[rows], recipe, rng)

    everything = slice(None)
    return {
        "random, 5 shots": trained(random, few, config.first),
        "random, 50 shots": trained(random, everything, config.first),
        "anchor, 50 shots": trained(generator.prior.anchor, everything, config.first),
        "generated": generated,
        "generated, 50 shots": trained(generated, everything, config.later),
    }


def _row(release: ServedRelease, networks: Mapping[str, Tensor], site: HeldOutSite) -> Row:
    target, codec = release.target, release.generator.codec
    found = {}
    for name, network in networks.items():
        copy = codec.decode(codec.encode(network[None]))[0]
        found[name] = tuple(loss_and_accuracy(target, w, *site.test)[1] for w in (network, copy))
    return found


def main() -> None:
    """Runs every seed and prints a table for each kind of site."""
    chosen = options(__doc__ or "")
    shape = (20, 4, 3) if chosen.quick else (40, 30, 6)
    found = side_by_side(job, [(seed, *shape, chosen.data) for seed in range(chosen.seeds)])
    figures: dict[str, Any] = {}
    for kind in ("seen", "unseen"):
        rows = [row for one in found for row in one.get(kind, ())]
        if not rows:
            continue
        print(f"\n{kind} classes, {len(rows)} held-out sites")
        print(f"{'network':<22}{'accuracy':>16}{'through the codec':>20}{'round trip':>12}")
        figures[kind] = {}
        for name in rows[0]:
            both = torch.tensor([row[name] for row in rows], dtype=torch.float64)
            (mean, copied), (error, _) = both.mean(0).tolist(), half_width(both).tolist()
            figures[kind][name] = {"accuracy": mean, "ci95": error, "through_codec": copied}
            cells = f"{f'{mean:.3f} ±{error:.3f}':>16}{copied:>20.3f}{copied / mean:>12.3f}"
            print(f"{name:<22}{cells}")
    write_json(chosen.json, {"seeds": chosen.seeds, "ceiling": figures})


if __name__ == "__main__":
    main()
