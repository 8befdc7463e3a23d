"""A mixed fleet: networks of four basins in one zoo, at held-out sites before any local step.

`python -m tests.benchmarks.mixed_fleet [--quick] [--seeds N] [--json OUT.json]`

120 few-shot sites train a network each, a quarter of them from each of four random anchors; the
two contexts of each start from one of these, so that they don't tell the family. 20 held-out sites
have classes that training sites have, 20 have others. Rows:

* ``one prior``: fitted on all records; alone, and with normal draws around it.
* ``records``: other sites' networks as they are, as many as there are draws.
* ``a prior per family``: families found by `f2l_fed.prior.families`; the prior of one of them
  alone, and with draws of all families in the share that the context says.
* ``one basin``: as many sites that all began at one anchor.

With draws a site's start is its own choice among 64 and the mean of the best 8, or such means
(`f2l_fed.generator.candidates`), all drawn with a mixed fleet's temperature. Differences from one
prior with draws are paired by site, with Student's 95%; ``spread`` is the standard deviation of
the seeds' means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from f2l_fed.config import FederationConfig, load_config
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import Partition, load_dataset, partition
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.generator.candidates import candidates_for_service
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.probe import anchor, probe_update, support_set
from f2l_fed.local_training.selection import select
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target, build_target
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import SEPARATE, options, paired, side_by_side, write_json

BASINS, EPISODES = 4, 2
BASE = "one prior, draws"


class Fleet:
    """The sites of one seed.

    Args:
        seed: Of all draws.
        sites: Training sites.
        held_out: Held-out sites of each kind.
        data: Names of data sets, separated by commas.
    """

    def __init__(self, seed: int, sites: int, held_out: int, data: str) -> None:
        self.seed = seed
        self.config: FederationConfig = replace(load_config(None, SEPARATE), seed=seed)
        self.divided: Partition = partition(
            "few-shot",
            [load_dataset(name) for name in data.split(",")],
            sites=sites,
            held_out=held_out,
            seed=seed,
            config=self.config.split,
        )
        shape, classes = self.divided.input_shape, self.divided.classes
        self.target: Target = build_target(self.config.target.name, shape, classes)
        self.anchors = [anchor(self.target, f"{seed}-{basin}") for basin in range(BASINS)]
        self.labels = torch.arange(sites) % BASINS

    def trained(self, basins: Tensor) -> Tensor:
        """(n, D) float32, every site's network, from the anchors of (n,) basins."""
        found = [
            finetune(
                self.target,
                self.anchors[basin],
                torch.from_numpy(site.x_train),
                torch.from_numpy(site.y_train),
                self.config.first,
                generator_for(self.seed, site.name, basin),
            )
            for site, basin in zip(self.divided.sites, basins.tolist(), strict=True)
        ]
        return torch.stack(found)

    def context(self, name: str, x: Tensor, y: Tensor, episode: int) -> Tensor:
        """(D,) float32, a probe update from the first anchor."""
        probe = self.config.probe
        support = support_set(y, probe.shots, generator_for(self.seed, name, "probe", episode))
        return probe_update(self.target, self.anchors[0], x[support], y[support], probe.recipe)

    def contexts(self) -> Tensor:
        """(n, E, D) float32, of all training sites."""
        found = [
            self.context(
                site.name, torch.from_numpy(site.x_train), torch.from_numpy(site.y_train), episode
            )
            for site in self.divided.sites
            for episode in range(EPISODES)
        ]
        return torch.stack(found).view(len(self.labels), -1, self.target.layout.size)

    def fitted(self, contexts: Tensor, networks: Tensor, families: int) -> Generator:
        """A generator without a flow, of so many families at most."""
        config = self.config.generator
        config = replace(
            config,
            flow=replace(config.flow, steps=0),
            prior=replace(config.prior, families=families),
        )
        return fit_generator(
            contexts,
            networks[:, None].expand_as(contexts).contiguous(),
            self.target,
            OutputSymmetry.of(self.target, enabled=True),
            config,
            generator_for(self.seed, "fit"),
            anchor=self.anchors[0],
        ).generator


def job(seed: int, sites: int, held_out: int, data: str) -> dict[str, Any]:
    """Accuracy of every row at every held-out site before any step, and the families found."""
    fleet = Fleet(seed, sites, held_out, data)
    most = fleet.config.generator.prior.families
    contexts, mixed = fleet.contexts(), fleet.trained(fleet.labels)
    one, several = (fleet.fitted(contexts, mixed, families) for families in (1, most))
    basin = fleet.fitted(contexts, fleet.trained(torch.zeros_like(fleet.labels)), most)
    rows = {
        **_rows(fleet, "one prior", one),
        "records": lambda site: _among_records(fleet, mixed, site),
        **_rows(fleet, "a prior per family", several),
        **_rows(fleet, "one basin", basin),
    }
    parts = held_out_sites(fleet.divided)
    own = zip(fleet.labels.tolist(), several.family_of(mixed).tolist(), strict=True)
    return {
        "accuracy": {
            kind: {
                row: [
                    loss_and_accuracy(fleet.target, start(site), *site.test)[1]
                    for site in found or ()
                ]
                for row, start in rows.items()
            }
            for kind, found in parts.items()
        },
        "families": len(several.members),
        "exact": len(set(own)) == BASINS == len(several.members),
        "of_one_basin": len(basin.members),
    }


def _rows(
    fleet: Fleet, name: str, generator: Generator
) -> dict[str, Callable[[HeldOutSite], Tensor]]:
    """The start by the prediction alone, and by choice among draws around it."""

    def expected(site: HeldOutSite) -> Tensor:
        return generator.expect(fleet.context(site.name, *site.train, 0)[None])[0]

    def drawn(site: HeldOutSite) -> Tensor:
        context, choice = fleet.context(site.name, *site.train, 0), fleet.config.candidates
        choice = replace(choice, temperature=choice.fleet_temperature)
        centre = generator.expect(context[None])[0]
        rng = generator_for(fleet.seed, site.name, "draws")
        offered = candidates_for_service(
            generator, None, context, centre, choice, rng, evaluations=0
        )
        return select(fleet.target, offered, *site.train, keep=choice.keep)[1]

    return {f"{name}, alone": expected, f"{name}, draws": drawn}


def _among_records(fleet: Fleet, networks: Tensor, site: HeldOutSite) -> Tensor:
    rng = generator_for(fleet.seed, site.name, "records")
    picks = torch.randperm(len(networks), generator=rng)[: fleet.config.candidates.samples]
    offered = {f"record-{index}": networks[index] for index in picks.tolist()}
    return select(fleet.target, offered, *site.train)[1]


def summarise(seeds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each row's accuracy, its difference from the base with an interval, and the spread."""
    kinds, rows = seeds[0]["accuracy"], next(iter(seeds[0]["accuracy"].values()))
    # (seeds, sites), sites of both kinds.
    found = {
        row: torch.tensor(
            [[one for kind in kinds for one in seed["accuracy"][kind][row]] for seed in seeds],
            dtype=torch.float64,
        )
        for row in rows
    }
    base = found[BASE].flatten()[:, None]
    return {
        row: {
            **paired(values.flatten()[:, None], base),
            "spread": float(values.mean(1).std()) if len(seeds) > 1 else 0.0,
            "by_kind": {
                kind: float(torch.tensor([seed["accuracy"][kind][row] for seed in seeds]).mean())
                for kind in kinds
            },
        }
        for row, values in found.items()
    }


def main() -> None:
    """Runs all seeds and prints one table."""
    chosen = options(__doc__ or "")
    sites, held_out = (48, 6) if chosen.quick else (120, 20)
    found = side_by_side(
        job, [(seed, sites, held_out, chosen.data) for seed in range(chosen.seeds)]
    )
    table = summarise(found)
    kinds = list(found[0]["accuracy"])
    heads = ("accuracy", "spread", *kinds, "difference")
    print(f"{'':<28}" + "".join(f"{head:>12}" for head in heads))
    for row, figures in table.items():
        shown = [figures["accuracy"][0], figures["spread"], *figures["by_kind"].values()]
        print(
            f"{row:<28}"
            + "".join(f"{100 * value:>12.1f}" for value in shown)
            + f"{100 * figures['difference'][0]:>8.1f} ±{100 * figures['ci95'][0]:.1f}"
        )
    for name, key in (
        ("families found", "families"),
        ("exactly the basins", "exact"),
        ("families found in one basin", "of_one_basin"),
    ):
        print(f"{name}: {[one[key] for one in found]}")
    write_json(chosen.json, {"seeds": found, "table": table})


if __name__ == "__main__":
    main()
