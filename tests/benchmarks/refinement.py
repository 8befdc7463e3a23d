"""The value of returned updates to a generator: vector-Jacobian products and closed form.

`python -m tests.benchmarks.refinement [--quick] [--seeds N] [--json OUT.json]`

A federation of 40 sites is stopped after the first round in which the anchor has stayed, and again
four rounds later. ``parent`` is the release that made the starts of the last round; the other rows
have learned from the updates of that round. ``VJP`` rows move the parent itself
(`f2l_fed.generator.refinement`): its prior by all updates, velocity and codec by those that began
at a draw, with the noise of that draw. ``retrained`` is the release that followed, whose prior
takes the same step in closed form. Differences are paired by held-out site, with Student's 95%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import GENERATED, PRIOR
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts
from f2l_fed.generator.config import SampleConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.refinement import RefineConfig, Refinement, ReturnedNetworks, refine
from f2l_fed.local_training import candidate_kinds
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.candidates import candidates_for
from server.generator.release_records import release_records
from server.generator.training_set import expectation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

STEPS = (0, 1, 5)
ARMS = (PRIOR, GENERATED)
BASE = "parent"

Curves = dict[str, dict[str, list[float]]]
"""By row and arm, at one site: accuracy after each number of steps."""
Found = dict[str, tuple[dict[str, Any], list[Curves]]]
"""By moment and kind of sites: figures of the refinements, and the sites' curves."""


def job(seed: int, held_out: int, moments: Sequence[int], data: str) -> Found:
    """Curves at every held-out site after each number of rounds."""
    found: Found = {}
    with laid_out(seed, 40, held_out, data) as (federation, divided):
        parts, before = held_out_sites(divided), 0
        for rounds in moments:
            run_inline(federation, rounds - before)
            before = rounds
            rows, figures = refined(federation)
            release = promoted(federation)
            for kind, sites in parts.items():
                curves = [curves_at(federation, release, rows, site) for site in sites or ()]
                found[f"after round {rounds}, {kind} classes"] = (figures, curves)
    return found


def refined(federation: Federation) -> tuple[dict[str, Generator], dict[str, Any]]:
    """The generator of every row, and the gain at sites kept aside."""
    release = federation.releases.promoted()
    assert release is not None
    parent = federation.releases.generator(release.parent)
    # Where normal draws are as good a release has no evaluations, by which a field could be moved.
    sample = replace(parent.config.sample, evaluations=federation.config.sample.evaluations)
    parent = replace(parent, config=replace(parent.config, sample=sample))
    every, drawn = returned(federation, release, parent)
    still = replace(parent.config, sample=SampleConfig(evaluations=0, temperature=0.0))
    rng = generator_for(federation.config.lineage, "refinement")
    episodes = federation.config.probe.episodes
    by_prior = refine(
        replace(parent, config=still), every, RefineConfig(parts=("prior",)), rng, group=episodes
    )
    by_flow = refine(parent, drawn, RefineConfig(parts=("velocity",)), rng)
    by_all = refine(parent, drawn, RefineConfig(), rng)
    rows = {
        BASE: parent,
        "VJP, prior": replace(by_prior.generator, config=parent.config),
        "VJP, velocity": by_flow.generator,
        "VJP, everything": by_all.generator,
        "retrained": federation.releases.generator(release.id),
    }
    found = {"VJP, prior": by_prior, "VJP, velocity": by_flow, "VJP, everything": by_all}
    return rows, {row: _figures(refinement) for row, refinement in found.items()}


def _figures(found: Refinement) -> dict[str, float]:
    return {"steps": found.steps, "update_left": found.after / found.before}


def returned(
    federation: Federation, release: Release, parent: Generator
) -> tuple[ReturnedNetworks, ReturnedNetworks]:
    """All updates, as from the prior, and one of every site that began at a draw."""
    records, sites = release_records(federation, release), list(release.sites)
    contexts = records.contexts.view(len(sites), -1, records.contexts.shape[1])
    made_by = federation.releases.read(release.parent)
    before = expectation(federation, made_by, sites, contexts)
    assert before is not None
    by_key = {r.key: r for r in federation.zoo.snapshot(release.snapshot).records()}
    moved = [by_key[key].metrics["update_norm"] for key in release.records]
    offers = candidates_for(federation, made_by.id, sites, contexts)
    every = ReturnedNetworks(
        contexts=records.contexts,
        expected=before.expected.flatten(0, 1),
        noise=torch.zeros(len(records.contexts), parent.codec.shape.size),
        weights=records.weights,
    )
    rows, noise = [], []
    for index, site in enumerate(sites):
        rng = generator_for(federation.config.lineage, made_by.id, site, "candidates")
        found: list[tuple[int, Tensor]] = []
        for episode, offered in enumerate(offers[site]):
            row = index * contexts.shape[1] + episode
            drawn = parent.noise(federation.config.candidates.training_samples, rng)
            for number, one in enumerate(drawn):
                update = records.weights[row] - offered[candidate_kinds.sample(number)]
                if isclose(float(update.norm()), moved[row], rel_tol=1e-4):
                    found.append((row, one))
        rows += [row for row, _ in found[:1]]
        noise += [one for _, one in found[:1]]
    return every, replace(every[torch.tensor(rows)], noise=torch.stack(noise))


def curves_at(
    federation: Federation, release: ServedRelease, rows: dict[str, Generator], site: HeldOutSite
) -> Curves:
    """Accuracies of every row at one site."""
    config, found = federation.config, {}
    for row, generator in rows.items():
        arms = starts(replace(release, generator=generator), site)
        chosen = {arm: arms[arm] for arm in ARMS}
        found[row] = measure(federation.target, chosen, site, config.local, config.lineage, STEPS)
    return found


def compare(curves: list[Curves]) -> dict[str, Any]:
    """By row and arm: mean accuracy, and the paired difference from the parent's."""
    table: dict[str, Any] = {}
    for row in curves[0]:
        for arm in ARMS:
            ours, base = (
                torch.tensor([site[which][arm] for site in curves]).double()
                for which in (row, BASE)
            )
            table.setdefault(row, {})[arm] = paired(ours, base)
    return table


def main() -> None:
    """Runs every seed."""
    chosen = options(__doc__ or "")
    held_out, moments = (6, (4,)) if chosen.quick else (30, (4, 8))
    by_seed = side_by_side(
        job, [(seed, held_out, moments, chosen.data) for seed in range(chosen.seeds)]
    )
    tables = {}
    for moment in by_seed[0]:
        figures = [found[moment][0] for found in by_seed]
        table = compare([site for found in by_seed for site in found[moment][1]])
        tables[moment] = {"refinements": figures, "rows": table}
        print(f"\n{moment}: accuracy after {STEPS} steps, and difference from {BASE!r}")
        for row, arms in table.items():
            for arm, part in arms.items():
                cells = zip(part["difference"], part["ci95"], strict=True)
                print(
                    f"{row:<17}{arm:<11}"
                    + "".join(f"{value:>7.3f}" for value in part["accuracy"])
                    + "".join(f"{d:>+9.3f} ±{c:.3f}" for d, c in cells)
                )
        for row in figures[0]:
            left = ", ".join(f"{one[row]['update_left']:.3f}" for one in figures)
            print(f"{row}: of the squared updates of sites kept aside, {left} is left")
    write_json(chosen.json, {"steps": STEPS, "seeds": chosen.seeds, "tables": tables})


if __name__ == "__main__":
    main()
