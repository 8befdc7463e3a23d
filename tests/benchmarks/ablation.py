"""Ablation: the start without each ingredient, at held-out sites.

`python -m tests.benchmarks.ablation [--quick] [--seeds N] [--json OUT.json] [--plot OUT.svg]`

Each row is a federation of 40 sites over six rounds in which one ingredient is off; the rows
marked with * differ in what is drawn and chosen at the end only, and share the federation of the
first row. The differences from the first row are paired by site, and so are their intervals
(Student's 95%, over the sites of all seeds).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import torch

from f2l_fed.config import load_config
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import GENERATED, PRIOR
from f2l_fed.evaluation.arms import measure, starts
from f2l_fed.flow.residual_prior import ResidualCorrection, fit_residual
from server.federation.folder import FEDERATION_FILE, Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

STEPS = (0, 1, 5, 20)
KINDS = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A federation with one ingredient off.

    Args:
        overrides: Overrides of the configuration.
        symmetry: Whether the output symmetry is used.
        arm: Key of the measured arm.
    """

    overrides: tuple[str, ...] = ()
    symmetry: bool = True
    arm: str = GENERATED


WHOLE = "everything on"
RESIDUAL = "residual"
VARIANTS = {
    WHOLE: Variant(),
    "no output symmetry": Variant(symmetry=False),
    "anchor never moves": Variant(overrides=("probe.anchors=1",)),
    "no refinement by updates": Variant(overrides=("probe.anchors=99",)),
    "one episode a site": Variant(overrides=("probe.episodes=1",)),
    "no draws in training": Variant(overrides=("candidates.training_samples=0",)),
    "flow from N(0, I)": Variant(overrides=("flow.source=gaussian",)),
}
LAST = {
    "* plain Gaussian for flow": Variant(arm="gaussian"),
    "* no draws at the site": Variant(arm=PRIOR),
    "* best draw, no mean": Variant(overrides=("candidates.keep=1",)),
    "* 8 draws": Variant(overrides=("candidates.samples=8", "candidates.keep=2")),
    "* temperature 1": Variant(overrides=("candidates.temperature=1.0",)),
    "* no learned prior": Variant(arm="probe"),
    "* residual network, no draws": Variant(arm=RESIDUAL),
}

Curves = dict[str, list[list[float]]]
"""Accuracies of every held-out site, by kind."""


def job(
    name: str, seed: int, sites: int, held_out: int, rounds: int, data: str
) -> dict[str, Curves]:
    """Curves by row of the table."""
    variant = VARIANTS[name]
    with laid_out(seed, sites, held_out, data, variant.overrides) as (federation, divided):
        if not variant.symmetry:
            federation = _without_symmetry(federation)
        run_inline(federation, rounds)
        parts = held_out_sites(divided)
        rows = {name: variant, **(LAST if name == WHOLE else {})}
        return {row: curves(federation, parts, rows[row]) for row in rows}


def _without_symmetry(federation: Federation) -> Federation:
    config = replace(federation.config, shared_labels=True)
    write_atomically(federation.root / FEDERATION_FILE, json.dumps(config.to_json()))
    return Federation.open(federation.root)


def curves(federation: Federation, parts: Any, variant: Variant) -> Curves:
    """Measures one start of the promoted release at every held-out site."""
    chosen = load_config(None, variant.overrides).candidates
    config, release = federation.config, replace(promoted(federation), candidates=chosen)
    corrected = residual(federation) if variant.arm == RESIDUAL else None
    found: Curves = {}
    for kind in KINDS:
        found[kind] = []
        for site in parts[kind] or ():
            arms = starts(release, site)
            if corrected is not None:
                arms[RESIDUAL] = corrected(arms[PRIOR][None])[0]
            start = {variant.arm: arms[variant.arm]}
            curve = measure(release.target, start, site, config.local, config.lineage, STEPS)
            found[kind].append(curve[variant.arm])
    return found


def residual(federation: Federation) -> ResidualCorrection:
    """A residual network on the promoted release's prior, as large as its flow."""
    config, served = federation.config, promoted(federation)
    id = federation.releases.measured().id
    return fit_residual(
        served.records.weights,
        federation.releases.expected(id).flatten(0, 1),
        served.generator.codec,
        config.flow,
        generator_for(config.lineage, id, "residual"),
        group=config.probe.episodes,
    )


def compare(rows: dict[str, list[Curves]]) -> dict[str, Any]:
    """Mean accuracy and paired difference from the first row, by row and kind."""
    table: dict[str, Any] = {}
    for row, by_seed in rows.items():
        table[row] = {}
        for kind in KINDS:
            ours, whole = (
                torch.tensor([curve for seed in some for curve in seed[kind]], dtype=torch.float64)
                for some in (by_seed, rows[WHOLE])
            )
            if not len(ours):
                continue
            table[row][kind] = paired(ours, whole)
    return table


def show(table: dict[str, Any]) -> None:
    """Prints the table of one kind after the other."""
    for kind in KINDS:
        print(f"\n{kind} classes: accuracy after {STEPS[0]} steps, difference after n steps")
        print(f"{'':<31}{'accuracy':>9}" + "".join(f"{n:>16}" for n in STEPS))
        for row, parts in table.items():
            if kind in parts:
                part = parts[kind]
                cells = zip(part["difference"], part["ci95"], strict=True)
                print(
                    f"{row:<31}{part['accuracy'][0]:>9.3f}"
                    + "".join(f"{d:>+9.3f} ±{c:.3f}" for d, c in cells)
                )


def plot(table: dict[str, Any], path: Any) -> None:
    """Draws the loss without each ingredient, before any local step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        rows = [row for row in table if row != WHOLE and kind in table[row]]
        axes.barh(
            rows,
            [table[row][kind]["difference"][0] for row in rows],
            xerr=[table[row][kind]["ci95"][0] for row in rows],
            color="#4477aa",
            error_kw={"linewidth": 1},
        )
        axes.axvline(0, color="black", linewidth=1)
        axes.set_title(f"{kind} classes")
        axes.set_xlabel("accuracy before any step,\ncompared with everything on")
        axes.invert_yaxis()
    figure.savefig(path)
    print(f"plot in {path}")


def main() -> None:
    """Runs every variant with every seed."""
    chosen = options(__doc__ or "", plot=True)
    sites, held_out, rounds = (20, 6, 4) if chosen.quick else (40, 30, 6)
    jobs = [
        (name, seed, sites, held_out, rounds, chosen.data)
        for name in VARIANTS
        for seed in range(chosen.seeds)
    ]
    rows: dict[str, list[Curves]] = {row: [] for row in (WHOLE, *LAST, *VARIANTS)}
    for found in side_by_side(job, jobs):
        for row, curve in found.items():
            rows[row].append(curve)
    table = compare(rows)
    show(table)
    write_json(chosen.json, {"steps": STEPS, "seeds": chosen.seeds, "rows": table})
    if chosen.plot:
        plot(table, chosen.plot)


if __name__ == "__main__":
    main()
