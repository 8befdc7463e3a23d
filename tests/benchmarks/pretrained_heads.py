"""Generated heads on a pretrained, frozen backbone, against what a user would do instead.

`python -m tests.benchmarks.pretrained_heads FEATURES.npz [--sites N] [--held-out N] [--shots N …]
[--ways N N] [--measured N …] [--seeds N] [--first-seed N] [--json OUT.json]`, with features by
`pretrained_features`.

Every site has five classes of its own (training sites from --ways to --ways, held-out sites each of
--measured), in an order of its own. A third of the classes is at no training site. Held-out sites
have classes that other sites have (``known``), such classes in a new domain (``domain``), classes
that nobody has (``unknown``), or known ones with two fifths of unknown ones (``mixed``); they have
few examples a class and up to twenty to be tested on. No example, and no other vendor's picture of
the same emoji, is on both sides.

Features are centred by the mean of the training sites' and scaled to a root mean square norm of 1,
or with ``--fixed`` by the constants of a backbone's file (`backbones`). Everything else is the
product's own path for heads on a body: contexts, pairs, ridge, likeness gate, pull, temperature.
Arms: ``generated``; the same after 20 pulled steps; logistic regression with a strength by 5-fold
cross-validation (at one shot: the strength that is best on average at other seeds), which the leads
are paired with; a logistic head of fixed strength; class means, and cosines to class means. All are
measured at the same sites. Intervals are Student's 95% intervals over sites and seeds together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.config import load_config
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import GENERATED, LOGISTIC
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts_from_heads
from f2l_fed.evaluation.baselines.baseline import CommonWork, TrainingSite
from f2l_fed.evaluation.summary import half_width
from f2l_fed.local_training.logistic_head import logistic_head, rows, with_ones
from f2l_fed.local_training.temperature import temperature_of
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.frozen_part import FrozenPart
from tests.benchmarks.common import side_by_side, write_json
from tests.benchmarks.own_method import release_on

KINDS = ("known", "domain", "unknown", "mixed")
TESTED = 20
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of logistic regression's penalty, divided by the number of examples."""

AT_ONE_SHOT = 1.0
CROSS_VALIDATED, COSINES, AFTER = "cross_validated", "cosine_means", "generated_20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One federation.

    Args:
        features: File of features.
        sites: Training sites.
        held_out: Held-out sites of each kind.
        examples: Examples a class of a training site.
        map_shots: Examples a class of a training site's contexts.
        shots: Examples a class of held-out sites.
        fixed: Whether features are taken as they are: a backbone's file has centred them.
        ways: Fewest and most classes of a training site.
        measured: Numbers of classes of held-out sites.
    """

    features: Path
    sites: int
    held_out: int
    examples: int
    map_shots: int
    shots: tuple[int, ...]
    ways: tuple[int, int]
    measured: tuple[int, ...]
    fixed: bool = False

    @property
    def most(self) -> int:
        """The largest number of classes of any site."""
        return max(*self.ways, *self.measured)


class Features:
    """Features of one set, divided into a part for training sites and a part for held-out ones."""

    def __init__(self, file: Path, rng: torch.Generator, *, fixed: bool = False) -> None:
        with np.load(file) as found:
            read = {name: torch.from_numpy(found[name]) for name in found.files}
        self.y, self.domain, self.group = read["y"], read["domain"], read["group"]
        classes = int(self.y.max()) + 1
        held = torch.zeros(len(self.y), dtype=torch.bool)
        for name in range(classes):
            groups = self.group[(self.y == name) & (self.domain == 0)].unique()
            groups = groups[torch.randperm(len(groups), generator=rng)]
            held |= (self.y == name) & torch.isin(self.group, groups[len(groups) // 2 :])
        # Where domains share no groups, all of the new one is held out.
        foreign = ~torch.isin(self.group, self.group[self.domain == 0])
        self.held_out = held | foreign
        usable = [
            name
            for name in range(classes)
            if len(self.groups_of(name, domain=0, held_out=True)) >= 9
        ]
        order = torch.randperm(len(usable), generator=rng).tolist()
        cut = round(len(order) * 2 / 3)
        self.known = [usable[number] for number in order[:cut]]
        self.unknown = [usable[number] for number in order[cut:]]
        self.x = read["x"]
        if fixed:
            return
        training = self.rows_of(self.known, domain=0, held_out=False)
        centred = read["x"] - read["x"][training].mean(0)
        self.x = centred / centred[training].square().sum(1).mean().sqrt()

    def rows_of(self, names: Sequence[int], *, domain: int, held_out: bool) -> Tensor:
        """Numbers of the examples of some classes."""
        chosen = torch.isin(self.y, torch.tensor(names)) & (self.domain == domain)
        return (chosen & (self.held_out == held_out)).nonzero().flatten()

    def groups_of(self, name: int, *, domain: int, held_out: bool) -> Tensor:
        """The groups of a class."""
        return self.group[self.rows_of([name], domain=domain, held_out=held_out)].unique()


def training_sites(
    data: Features, setting: Setting, rng: torch.Generator
) -> Iterator[TrainingSite]:
    """Sites with known classes; examples are apart until a class has no more."""
    left: dict[int, list[int]] = {}
    for number in range(setting.sites):
        fewest, most = setting.ways
        ways = int(torch.randint(fewest, most + 1, (), generator=rng)) if most > fewest else most
        rows_, labels = [], []
        for label, name in enumerate(_some(data.known, ways, rng)):
            for _ in range(setting.examples):
                if not left.get(name):
                    own = data.rows_of([name], domain=0, held_out=False)
                    left[name] = own[torch.randperm(len(own), generator=rng)].tolist()
                rows_.append(left[name].pop())
                labels.append(label)
        yield TrainingSite(name=f"site-{number:03d}", x=data.x[rows_], y=torch.tensor(labels))


def held_out_site(
    data: Features, kind: str, shots: int, ways: int, name: str, rng: torch.Generator
) -> HeldOutSite | None:
    """A site of a kind with so many examples a class; None where there are not so many classes."""
    domain = int(kind == "domain")
    enough = {
        number
        for number in (*data.known, *data.unknown)
        if len(data.groups_of(number, domain=domain, held_out=True)) >= shots + 4
    }
    known = [number for number in data.known if number in enough]
    unknown = [number for number in data.unknown if number in enough]
    of_known = {"unknown": 0, "mixed": round(0.6 * ways)}.get(kind, ways)
    names = _some(known, of_known, rng) + _some(unknown, ways - of_known, rng)
    if len(names) < ways:
        return None
    train, test = [], []
    for label, number in enumerate(names):
        groups = data.groups_of(number, domain=domain, held_out=True)
        groups = groups[torch.randperm(len(groups), generator=rng)]
        own = data.rows_of([number], domain=domain, held_out=True)
        for place, group in enumerate(groups[: shots + TESTED].tolist()):
            same = own[data.group[own] == group]
            if place < shots:
                same = same[torch.randint(len(same), (1,), generator=rng)]
            (train if place < shots else test).extend((row, label) for row in same.tolist())
    (x_rows, y), (x_test, y_test) = (zip(*part, strict=True) for part in (train, test))
    return HeldOutSite(
        name=name,
        train=(data.x[list(x_rows)], torch.tensor(y)),
        test=(data.x[list(x_test)], torch.tensor(y_test)),
    )


def _some(names: Sequence[int], count: int, rng: torch.Generator) -> list[int]:
    return [names[number] for number in torch.randperm(len(names), generator=rng)[:count].tolist()]


def cross_validated(x: Tensor, y: Tensor) -> Tensor:
    """(K, F + 1) float32, logistic regression as a user would fit it."""
    strength = AT_ONE_SHOT
    folds = min(5, int(y.bincount().min()))
    if folds > 1:
        order = torch.cat([torch.arange(int((y == label).sum())) for label in y.unique()])
        place = torch.empty_like(y)
        place[y.argsort(stable=True)] = order % folds
        losses = [
            sum(
                float(
                    functional.cross_entropy(
                        with_ones(x[place == fold])
                        @ _regression(x[place != fold], y[place != fold], one).T,
                        y[place == fold],
                    )
                )
                for fold in range(folds)
            )
            for one in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmin(losses))]
    return _regression(x, y, strength)


def _regression(x: Tensor, y: Tensor, strength: float) -> Tensor:
    ways = int(y.max()) + 1
    return rows(logistic_head(x, y, ways, strength=strength / len(y)), ways)


def arms_at(release: ServedRelease, site: HeldOutSite, work: CommonWork) -> dict[str, float]:
    """Accuracy of every arm at one site, and calibration errors of the served one."""
    assert release.body is not None
    starts = starts_from_heads(release, release.body, site)
    x, y = site.train
    own = {arm: starts[arm] for arm in (GENERATED, LOGISTIC, "class_means")}
    network = release.network_of(site)
    found = measure(
        network, own, site, work.local, work.lineage, (0, 20), pulls=release.pulls(site)
    )
    result = {arm: curve[0] for arm, curve in found.items()}
    result[AFTER] = found[GENERATED][1]
    x_test, y_test = site.test
    regression = with_ones(x_test) @ cross_validated(x, y).T
    hot = functional.one_hot(y, site.classes).float()
    means = functional.normalize(hot.T @ x, dim=1)
    for arm, scores in {CROSS_VALIDATED: regression, COSINES: x_test @ means.T}.items():
        result[arm] = float((scores.argmax(1) == y_test).float().mean())
    logits = network.logits(own[GENERATED], x_test) / temperature_of(release.temperatures, y)
    for arm, said in {GENERATED: logits, CROSS_VALIDATED: regression}.items():
        result[f"{arm} loss"] = float(functional.cross_entropy(said, y_test))
    return result


def job(setting: Setting, seed: int) -> dict[str, list[dict[str, float]]]:
    """Arms at every held-out site of one seed, by shots and kind."""
    torch.set_num_threads(1)
    config = replace(load_config(None, ["target.adapt=head"]), seed=seed)
    rng = generator_for("pretrained heads", seed, "division")
    data = Features(setting.features, rng, fixed=setting.fixed)
    width, most = data.x.shape[1], setting.most
    body = Body.of(build_target("adapter", (width,), most, FrozenPart("0" * 64, width)))
    work = CommonWork(
        lineage=config.lineage,
        body=body,
        sites=tuple(training_sites(data, setting, rng)),
        rounds=1,
        episodes=config.episodes,
        head=replace(config.head, pairs=16),
        local=config.local,
    )
    release = release_on(work, config, torch.zeros(1), setting.map_shots)
    found: dict[str, list[dict[str, float]]] = {}
    for shots, ways, kind in product(setting.shots, setting.measured, KINDS):
        sites = [
            held_out_site(data, kind, shots, ways, f"{kind}-{number}", rng)
            for number in range(setting.held_out)
        ]
        there = [arms_at(release, site, work) for site in sites if site is not None]
        if there:
            found[f"{ways} classes, {shots} shots, {kind}"] = there
    return found


def main() -> None:
    """Measures all seeds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--examples", type=int, default=25)
    parser.add_argument("--map-shots", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 15])
    parser.add_argument("--ways", type=int, nargs=2, default=[5, 5])
    parser.add_argument("--measured", type=int, nargs="+", default=[5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--fixed", action="store_true", help="features of `backbones`")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    setting = Setting(
        features=chosen.features,
        sites=chosen.sites,
        held_out=chosen.held_out,
        examples=chosen.examples,
        map_shots=chosen.map_shots,
        shots=tuple(chosen.shots),
        fixed=chosen.fixed,
        ways=(min(chosen.ways), max(chosen.ways)),
        measured=tuple(chosen.measured),
    )
    seeds = [chosen.first_seed + number for number in range(chosen.seeds)]
    done = side_by_side(job, [(setting, seed) for seed in seeds])
    figures: dict[str, Any] = {}
    for cell in dict.fromkeys(name for one in done for name in one):
        sites = [site for one in done for site in one.get(cell, ())]
        base = torch.tensor([site[CROSS_VALIDATED] for site in sites], dtype=torch.float64)
        print(f"\n{cell}: logistic regression {100 * float(base.mean()):.1f}")
        figures[cell] = {CROSS_VALIDATED: float(base.mean())}
        for arm in sites[0]:
            ours = torch.tensor([site[arm] for site in sites], dtype=torch.float64)
            if arm.endswith(" loss"):
                figures[cell][arm] = float(ours.mean())
                print(f"  {arm:<24}{float(ours.mean()):>8.3f}")
            elif arm != CROSS_VALIDATED:
                lead = (ours - base)[:, None]
                mean, error = float(lead.mean()), float(half_width(lead))
                figures[cell][arm] = {"lead": mean, "ci95": error}
                print(f"  {arm:<24}{100 * mean:>+8.1f} ±{100 * error:.1f}")
    about = {"sites": chosen.sites, "held_out": chosen.held_out, "seeds": seeds}
    write_json(chosen.json, {**about, "cells": figures})


if __name__ == "__main__":
    main()
