"""Heads on an adapted part of a pretrained backbone, against what a user would do instead.

`python -m tests.benchmarks.adapted_parts FOLDER [--adapt lora] [--layer NAME …] [--rank N]
[--sites N] [--held-out N] [--rounds N] [--lr R …] [--seeds N] [--first-seed N] [--kept DIR]
[--json OUT.json]`

Emoji through EfficientNet-Lite0, divided as in `pretrained_heads`; FOLDER and the packages are
those of `tests.benchmarks.pretrained_features emoji`. The sites train the adapted part together, by
episodes from cached values at the cut, and a head on it is generated for a site with five examples
a class. All arms are measured at the same sites:

- ``generated`` and the same after 20 pulled steps;
- ``averaged``: logistic regression, by cross-validated strength, on the trained part;
- ``plain``: the same on the backbone as it is;
- ``alone``: the adapted part from zero, and a head that begins as that regression, trained by the
  site alone for 100 steps, with the better of two learning rates.

Leads over the last two are paired by site, with half of Student's 95% interval.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from f2l_fed.config import load_config
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts_from_heads
from f2l_fed.evaluation.baselines.baseline import CommonWork
from f2l_fed.evaluation.summary import half_width
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.logistic_head import with_ones
from f2l_fed.targets import build_target
from f2l_fed.targets.backbone import InstalledBackbone, InstalledPart, features_of
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.body import Body
from f2l_fed.targets.config import LORA, BackboneConfig
from tests.benchmarks.backbones import FACTS, NETWORK
from tests.benchmarks.common import side_by_side, write_json
from tests.benchmarks.own_method import release_on, trained_body
from tests.benchmarks.pretrained_features import emoji
from tests.benchmarks.pretrained_heads import (
    KINDS,
    Features,
    Setting,
    cross_validated,
    held_out_site,
    training_sites,
)

WAYS, SHOTS, STEPS = 5, 5, 100
AFTER, AVERAGED, ALONE, PLAIN = "generated_20", "averaged", "alone", "plain"
RATES = (0.03, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """One federation on an adapted part.

    Args:
        division: The sites and their examples, as values at the cut.
        part: The installed backbone.
        rounds: Rounds, of which the last makes heads alone.
        lr: Learning rate of the episodes.
    """

    division: Setting
    part: InstalledPart
    rounds: int
    lr: float


def arms_at(release: ServedRelease, site: HeldOutSite, work: CommonWork) -> dict[str, float]:
    """Accuracy of every arm at one site."""
    body = work.body
    assert release.generator.bodies is not None
    trained, first = release.generator.bodies.own, torch.zeros(body.layout.size)
    starts = starts_from_heads(release, body, site)
    network = release.network_of(site)
    own = {GENERATED: starts[GENERATED]}
    found = measure(
        network, own, site, work.local, work.lineage, (0, 20), pulls=release.pulls(site)
    )
    result = dict(zip((GENERATED, AFTER), found[GENERATED], strict=True))
    (x, y), (x_test, y_test) = site.train, site.test
    with torch.no_grad():
        for arm, weights in ((AVERAGED, trained), (PLAIN, first)):
            head = cross_validated(body.features(weights, x), y)
            scores = with_ones(body.features(weights, x_test)) @ head.T
            result[arm] = float((scores.argmax(1) == y_test).float().mean())
    start = body.join(first, torch.cat([head[:, :-1].flatten(), head[:, -1]]))
    for lr in RATES:
        recipe = Recipe(steps=STEPS, lr=lr, momentum=0.9, batch=0)
        rng = generator_for(work.lineage, site.name, "alone")
        made = finetune(network, start, x, y, recipe, rng)
        result[f"{ALONE} {lr}"] = loss_and_accuracy(network, made, x_test, y_test)[1]
    return result


def job(setting: Adapted, seed: int) -> dict[str, Any]:
    """Arms at every held-out site of one seed, by kind, and what a step costs."""
    torch.set_num_threads(1)
    settings = ["target.adapt=head", f"episodes.lr={setting.lr}"]
    config = replace(load_config(None, settings), seed=seed)
    rng = generator_for("pretrained heads", seed, "division")
    data = Features(setting.division.features, rng, fixed=True)
    body = Body.of(build_target("adapter", (1,), WAYS, setting.part))
    work = CommonWork(
        lineage=config.lineage,
        body=body,
        sites=tuple(training_sites(data, setting.division, rng)),
        rounds=setting.rounds,
        episodes=config.episodes,
        head=replace(config.head, pairs=16),
        local=config.local,
    )
    began = time.perf_counter()
    trained = trained_body(work, config)
    seconds = time.perf_counter() - began
    release = release_on(work, config, trained, SHOTS)
    found: dict[str, Any] = {}
    for kind, number in product(KINDS, range(setting.division.held_out)):
        site = held_out_site(data, kind, SHOTS, WAYS, f"{kind}-{number}", rng)
        if site is not None:
            found.setdefault(kind, []).append(arms_at(release, site, work))
    steps = sum(work.steps(number) for number in range(1, setting.rounds)) * len(work.sites)
    return {"kinds": found, "ms_a_step": 1000 * seconds / max(steps, 1)}


def main() -> None:
    """Measures all seeds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapt", default=LORA)
    parser.add_argument("--layer", nargs="+", default=["_blocks.15._project_conv", "_conv_head"])
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.05])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="keep and reuse backbone and values here")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    seeds = [chosen.first_seed + number for number in range(chosen.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        place = chosen.kept or Path(folder)
        layers = tuple(f"network.{layer}" for layer in chosen.layer)
        rank = chosen.rank if chosen.adapt == LORA else 0
        facts = replace(FACTS, adapt=chosen.adapt, layers=layers, rank=rank)
        config = BackboneConfig(file="backbone.safetensors", network=NETWORK)
        if not (place / config.file).exists():
            prepare_backbone(NETWORK, None, facts).write(place / config.file)
        backbone = InstalledBackbone.of(config, place)
        if not (place / "values.npz").exists():
            write_values(backbone, chosen.folder, place / "values.npz")
        with np.load(place / "values.npz") as values:
            size = values["x"].shape[1]
        part = backbone.installed
        assert isinstance(part, InstalledPart)
        print(f"{part.adapted} adapted numbers, {size} values at the cut")
        division = Setting(
            features=place / "values.npz",
            sites=chosen.sites,
            held_out=chosen.held_out,
            examples=25,
            map_shots=SHOTS,
            shots=(SHOTS,),
            ways=(WAYS, WAYS),
            measured=(WAYS,),
            fixed=True,
        )
        figures = {}
        for lr in chosen.lr:
            setting = Adapted(division=division, part=part, rounds=chosen.rounds, lr=lr)
            done = side_by_side(job, [(setting, seed) for seed in seeds])
            cost = np.median([one["ms_a_step"] for one in done])
            print(f"\nepisodes with lr {lr}: {cost:.1f} ms a step")
            figures[str(lr)] = printed(done)
    about = {"sites": chosen.sites, "held_out": chosen.held_out, "seeds": seeds}
    write_json(chosen.json, {**about, "adapted": part.adapted, "cut": size, "by_rate": figures})


def write_values(backbone: InstalledBackbone, folder: Path, out: Path) -> None:
    """Writes the emoji as values at the cut."""
    examples = list(emoji(folder))
    x = torch.from_numpy(np.stack([one.content for one in examples])).float() / 255
    values = features_of(backbone.front(), x)
    names = sorted({one.label for one in examples})
    np.savez(
        out,
        x=values.numpy(),
        y=np.array([names.index(one.label) for one in examples]),
        domain=np.array([one.domain for one in examples]),
        group=np.array([one.group for one in examples]),
    )


def printed(done: list[dict[str, Any]]) -> dict[str, Any]:
    """The leads by kind over both ways to do without a generated head, after printing them."""
    figures: dict[str, Any] = {}
    for kind in done[0]["kinds"]:
        sites = [site for one in done for site in one["kinds"][kind]]
        found = {
            arm: torch.tensor([site[arm] for site in sites], dtype=torch.float64)
            for arm in sites[0]
        }
        best = max(RATES, key=lambda lr: float(found[f"{ALONE} {lr}"].mean()))
        alone = found[f"{ALONE} {best}"]
        print(
            f"{kind}: logistic regression {100 * float(found[PLAIN].mean()):.1f}, "
            f"alone {100 * float(alone.mean()):.1f} (lr {best})"
        )
        figures[kind] = {PLAIN: float(found[PLAIN].mean()), ALONE: float(alone.mean())}
        for arm in (GENERATED, AFTER, AVERAGED):
            leads = {}
            for name, base in ((PLAIN, found[PLAIN]), (ALONE, alone)):
                lead = (found[arm] - base)[:, None]
                leads[name] = {"lead": float(lead.mean()), "ci95": float(half_width(lead))}
            figures[kind][arm] = leads
            words = "  ".join(
                f"over {name} {100 * one['lead']:+.1f} ±{100 * one['ci95']:.1f}"
                for name, one in leads.items()
            )
            print(f"  {arm:<14}{words}")
    return figures


if __name__ == "__main__":
    main()
