"""Heads on a frozen backbone: the generated one against what a user without a federation would do.

`python -m tests.benchmarks.backbones FOLDER [--cache FOLDER] [--seeds N] [--sites N] [--shots N]
[--pairs N] [--like synthetic|google] [--json OUT.json]`

The data are those of `tests.benchmarks.emoji`; 70% of the classes are at training sites, and no
emoji is on both sides. A training site has 5 classes and up to 25 pictures of each, by two vendors.
Held-out sites have 5 classes of the first kind (known), of the others (unknown), of both (3 and 2,
mixed), or of the first kind by a third vendor (domain). All arms work on the same features:
class means, cosine class means, a logistic head with the product's strength, logistic regression
with the strength that 5-fold cross-validation chooses, and the generated head at 0 and 20 steps.

Leads are over the latter regression, paired by site, with half of Student's 95% interval over the
sites of all seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.config import FederationConfig, load_config
from f2l_fed.evaluation.arm_names import GENERATED, LOGISTIC
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts_from_heads
from f2l_fed.evaluation.baselines.baseline import CommonWork, TrainingSite
from f2l_fed.local_training.logistic_head import logistic_head
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.config import ADAPTER
from tests.benchmarks.common import paired, write_json
from tests.benchmarks.emoji import Emoji, emoji_features
from tests.benchmarks.own_method import release_on

WAYS, MOST, TESTS = 5, 25, 10
KINDS = ("known", "domain", "unknown", "mixed")
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 1))
CROSS_VALIDATED, COSINE, CENTROIDS = "logistic_cv", "cosine_means", "class_means"


class Division:
    """The emoji of one seed on both sides, and the classes of both kinds."""

    def __init__(self, data: Emoji, seed: int) -> None:
        self.data, self.rng = data, torch.Generator().manual_seed(seed)
        classes = torch.randperm(int(data.y.max()) + 1, generator=self.rng).tolist()
        count = round(0.7 * len(classes))
        self.known, self.unknown = classes[:count], classes[count:]
        emoji = int(data.emoji.max()) + 1
        self.held_out = torch.rand(emoji, generator=self.rng) < 0.5

    def rows(self, label: int, vendors: tuple[int, ...], held_out: bool) -> Tensor:
        """The pictures of a class, in random order."""
        data = self.data
        right = (data.y == label) & torch.isin(data.vendor, torch.tensor(vendors))
        rows = torch.nonzero(right & (self.held_out[data.emoji] == held_out)).squeeze(1)
        return rows[torch.randperm(len(rows), generator=self.rng)]

    def drawn(self, classes: list[int], count: int) -> list[int]:
        """Some of these classes, in random order."""
        return [classes[i] for i in torch.randperm(len(classes), generator=self.rng)[:count]]

    def training_site(self, number: int) -> TrainingSite:
        """One site with known classes."""
        rows = [self.rows(label, (0, 1), False)[:MOST] for label in self.drawn(self.known, WAYS)]
        return TrainingSite(
            name=f"site-{number:03d}",
            x=self.data.x[torch.cat(rows)],
            y=torch.arange(WAYS).repeat_interleave(torch.tensor(list(map(len, rows)))),
        )

    def held_out_site(self, kind: str, number: int, shots: int) -> HeldOutSite:
        """One site that no training sees; no emoji of a test picture is among its examples."""
        classes = {
            "unknown": lambda: self.drawn(self.unknown, WAYS),
            "mixed": lambda: self.drawn(self.known, 3) + self.drawn(self.unknown, 2),
        }.get(kind, lambda: self.drawn(self.known, WAYS))()
        train, test = [], []
        for label in classes:
            rows = self.rows(label, (2,) if kind == "domain" else (0, 1), True)
            few = rows[:shots]
            rest = rows[shots:]
            rest = rest[~torch.isin(self.data.emoji[rest], self.data.emoji[few])]
            train.append(few)
            test.append(rest[:TESTS])

        def examples(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
            sizes = torch.tensor(list(map(len, parts)))
            return self.data.x[torch.cat(parts)], torch.arange(WAYS).repeat_interleave(sizes)

        return HeldOutSite(name=f"{kind}-{number:03d}", train=examples(train), test=examples(test))


def scores_of(head: Tensor, x: Tensor) -> Tensor:
    """(m, K) scores of a flat (K * F + K,) head."""
    return x @ head[:-WAYS].view(WAYS, -1).T + head[-WAYS:]


def cross_validated(x: Tensor, y: Tensor, tests: Tensor, labels: Tensor) -> float:
    """Accuracy of logistic regression with the strength of the fewest errors in 5 folds.

    Equally few errors are told apart by the loss. All is done in the span of the examples, where
    the solution lies.
    """
    basis = torch.linalg.qr(x.T)[0]
    x, tests = x @ basis, tests @ basis
    fold = torch.empty_like(y)
    fold[y.argsort(stable=True)] = torch.arange(len(y)) % 5
    folds = [fold != one for one in range(5) if len(y[fold != one].unique()) == WAYS]
    scored = []
    for strength in STRENGTHS if len(folds) > 1 else ():
        errors, loss = 0.0, 0.0
        for kept in folds:
            head = logistic_head(x[kept], y[kept], WAYS, strength=strength)
            scores = scores_of(head, x[~kept])
            errors += float((scores.argmax(1) != y[~kept]).sum())
            loss += float(functional.cross_entropy(scores, y[~kept], reduction="sum"))
        scored.append((errors, loss, strength))
    # Nothing can be left out of a single shot.
    strength = min(scored)[2] if scored else 0.25 / len(y)
    head = logistic_head(x, y, WAYS, strength=strength)
    return float((scores_of(head, tests).argmax(1) == labels).double().mean())


def centroid_scores(x: Tensor, y: Tensor, tests: Tensor, *, cosine: bool) -> Tensor:
    """(m, K) scores by the distance or the angle to class means."""
    if cosine:
        x, tests = functional.normalize(x), functional.normalize(tests)
    means = torch.stack([x[y == label].mean(0) for label in range(WAYS)])
    return tests @ functional.normalize(means).T if cosine else -torch.cdist(tests, means)


def arms(release: ServedRelease, site: HeldOutSite, config: FederationConfig) -> dict[str, float]:
    """Accuracies at one site, by arm."""
    assert release.body is not None
    (x, y), (tests, labels) = site.train, site.test
    made = starts_from_heads(release, release.body, site)
    curves = measure(
        release.network_of(site),
        {arm: made[arm] for arm in (GENERATED, LOGISTIC)},
        site,
        config.local,
        release.lineage,
        (0, 20),
        pulls=release.pulls(site),
    )
    found = {
        "generated": curves[GENERATED][0],
        "generated, 20 steps": curves[GENERATED][1],
        "logistic head": curves[LOGISTIC][0],
        CROSS_VALIDATED: cross_validated(x, y, tests, labels),
    }
    for name, cosine in ((CENTROIDS, False), (COSINE, True)):
        scores = centroid_scores(x, y, tests, cosine=cosine)
        found[name] = float((scores.argmax(1) == labels).double().mean())
    return found


def measured(data: Emoji, seed: int, chosen: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Kind and accuracies of every held-out site of one seed."""
    divided = Division(data, seed)
    config = load_config(None, [f"seed={seed}", f"head.pairs={chosen.pairs}"])
    body = Body.of(build_target(ADAPTER, (), WAYS, data.part))
    work = CommonWork(
        lineage=f"{ADAPTER}/{seed}",
        body=body,
        sites=tuple(divided.training_site(number) for number in range(chosen.sites)),
        rounds=1,
        episodes=config.episodes,
        head=config.head,
        local=config.local,
    )
    weights = body.initialise(torch.Generator())
    # A map that is fitted on five shots serves one and fifteen, too.
    release = release_on(work, config, weights, 5)
    release = replace(release, probe=replace(config.probe, shots=chosen.shots))
    for kind in KINDS:
        for number in range(chosen.held_out):
            yield kind, arms(release, divided.held_out_site(kind, number, chosen.shots), config)


def main() -> None:
    """Measures all seeds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=Path())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=150, help="of each kind and seed")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--like", choices=("synthetic", "google"), default="synthetic")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    data = emoji_features(chosen.folder, chosen.cache, chosen.like)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        for kind, row in measured(data, seed, chosen):
            found[kind].append(row)
    print(f"{len(data.y)} pictures, SHA-256 {data.digest[:16]}; backbone {data.part.digest[:16]}")
    print(f"{'':<22}" + "".join(f"{kind:>20}" for kind in KINDS))
    figures: dict[str, Any] = {}
    for arm in found["known"][0]:
        cells = []
        for kind in KINDS:
            ours, base = (
                torch.tensor([[row[key]] for row in found[kind]], dtype=torch.float64)
                for key in (arm, CROSS_VALIDATED)
            )
            one = figures.setdefault(kind, {})[arm] = paired(ours, base)
            lead, half = 100 * one["difference"][0], 100 * one["ci95"][0]
            cells.append(f"{100 * one['accuracy'][0]:.1f} {lead:+.1f} ±{half:.1f}")
        print(f"{arm:<22}" + "".join(f"{cell:>20}" for cell in cells))
    write_json(chosen.json, {"options": vars(chosen) | {"folder": "", "cache": ""}, **figures})


if __name__ == "__main__":
    main()
