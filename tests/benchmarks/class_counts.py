"""Gain of the prior by number of classes: sites with few and with many classes in one federation.

`python -m tests.benchmarks.class_counts [--quick] [--seeds N] [--data NAMES] [--json OUT.json]`

Two federations of equal size: one whose sites have 3 to 10 classes each, and one whose sites all
have 5. Each trains a body and fits one prior on the heads of all its sites. Held-out sites with 3,
5 and 10 classes then get the generated head and, on the same body, a logistic head of their own;
examples and local steps are the same. Half of the classes are at no training site.

The intervals are Student's 95% intervals over sites and seeds together, paired by site.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition, load_dataset, partition
from f2l_fed.evaluation.arm_names import GENERATED, LOGISTIC
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts_from_heads
from f2l_fed.local_training.finetune import STEPS
from server.cluster.baselines import work_of
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.init_gain import settled
from tests.benchmarks.own_method import release_on, trained_body

FEDERATIONS = {"3 to 10": (3, 10), "5": (5, 0)}
"""Fewest and most classes of a training site; 0 for the former at all."""

MEASURED = (3, 5, 10)
"""Numbers of classes of held-out sites."""

UNSEEN = 0.5
"""Share of the classes that no training site has, enough for a held-out site of them alone."""

SHOTS = 5


def divided(
    config: FederationConfig, data: str, ways: tuple[int, int], sites: int, held_out: int
) -> Partition:
    """The data for sites with these numbers of classes; what is held out is the same for all."""
    fewest, most = ways
    return partition(
        "few-shot",
        [load_dataset(name) for name in data.split(",")],
        sites=sites,
        held_out=held_out,
        seed=config.seed,
        config=replace(config.split, ways=fewest, most_ways=most, unseen_fraction=UNSEEN),
    )


def job(name: str, seed: int, data: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """(sites, steps) accuracies by number of classes, kind of site and arm, of one federation."""
    sites, held_out, rounds = size
    config = settled(seed, True)
    training = divided(config, data, FEDERATIONS[name], sites, 1)
    work = work_of(config, replace(training, classes=max(MEASURED)), rounds)
    release = release_on(work, config, trained_body(work, config), SHOTS)

    def curves(site: HeldOutSite) -> dict[str, list[float]]:
        return curves_at(release, site, config)

    found: dict[str, Any] = {"left_out": sites - len(release.records.contexts) // work.head.pairs}
    for classes in MEASURED:
        parts = held_out_sites(divided(config, data, (classes, 0), 1, held_out))
        found[str(classes)] = {
            kind: [curves(site) for site in held or ()] for kind, held in parts.items()
        }
    return found


def curves_at(
    release: ServedRelease, site: HeldOutSite, config: FederationConfig
) -> dict[str, list[float]]:
    """Accuracy of the generated and the logistic head after each number of steps, at one site."""
    assert release.body is not None
    starts = starts_from_heads(release, release.body, site)
    return measure(
        release.network_of(site),
        {arm: starts[arm] for arm in (GENERATED, LOGISTIC)},
        site,
        config.local,
        release.lineage,
        pulls=release.pulls(site),
    )


def main() -> None:
    """Runs both federations for each seed and prints a table."""
    chosen = options(__doc__ or "", seeds=1)
    size = (8, 4, 3) if chosen.quick else (40, 30, 8)
    keys = [(name, seed) for name in FEDERATIONS for seed in range(chosen.seeds)]
    jobs = [(*key, chosen.data, size) for key in keys]
    done = dict(zip(keys, side_by_side(job, jobs), strict=True))
    columns = [STEPS.index(0), STEPS.index(20)]
    print("classes of training sites, classes and kind of a held-out site, accuracy of the")
    print("generated head at 0 and 20 steps, and its lead over a logistic head at both")
    figures: dict[str, Any] = {"size": size, "seeds": chosen.seeds, "federations": {}}
    for name in FEDERATIONS:
        own = [done[name, seed] for seed in range(chosen.seeds)]
        rows = figures["federations"][name] = {"left_out": [one["left_out"] for one in own]}
        for classes in map(str, MEASURED):
            for kind in own[0][classes]:
                arms = {
                    arm: torch.tensor(
                        [curve[arm] for one in own for curve in one[classes][kind]],
                        dtype=torch.float64,
                    )
                    for arm in (GENERATED, LOGISTIC)
                }
                row = paired(arms[GENERATED], arms[LOGISTIC])
                rows[f"{classes} {kind}"] = row
                print(f"{name:<18}{classes:>10}{kind:>8}", end="")
                print("".join(f"{100 * row['accuracy'][c]:>12.1f}" for c in columns), end="")
                for c in columns:
                    gain, error = 100 * row["difference"][c], 100 * row["ci95"][c]
                    print(f"{f'{gain:+.1f} ±{error:.1f}':>14}", end="")
                print()
    write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
