"""Flow against latent diffusion on the same latents: quality, evaluations and time.

`python -m tests.benchmarks.flow_vs_diffusion [--quick] [--seeds N] [--json FILE] [--plot FILE]`

A federation of 40 sites runs six rounds. On the latents and held-out predictions of its last
release every model is fitted with the same network, schedule and early stopping, and draws
networks for the contexts of the held-out sites: the flow from the prior and from N(0, I), both
also rectified (``reflow``), and a diffusion around the prior, sampled by DDIM and by DDPM. With
no evaluation at all a draw from the prior's source is the plain Gaussian around the prediction.

``one`` is the accuracy of single draws before any local step, ``chosen`` that of the mean of the
best of many, chosen by the site's own examples; both are means over the sites of both kinds, with
Student's 95% intervals over the sites of all seeds. ``ms`` is the median time of 100 latents,
without the decoding that all share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease
from f2l_fed.evaluation.summary import half_width
from f2l_fed.flow import (
    VelocityField,
    draw,
    fit_diffusion,
    fit_flow,
    guided,
    sample_diffusion,
    solve,
)
from f2l_fed.flow.reflow import reflow
from f2l_fed.local_training import candidate_kinds
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.selection import select
from server.federation.folder import Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

EVALUATIONS = (1, 2, 4, 16, 64)
SINGLE = 8
TIMED = 20

Draw = Callable[[Tensor, torch.Generator, int, float], Tensor]
"""From contexts (n, k), randomness, evaluations and temperature to latents (n, k)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Data for fitting and measuring the models.

    Args:
        config: Of the federation.
        release: Its promoted release.
        targets: (n, k) float32, latents of the records.
        expected: (n, k) float32, latents of their held-out predictions.
    """

    config: FederationConfig
    release: ServedRelease
    targets: Tensor
    expected: Tensor

    @classmethod
    def of(cls, federation: Federation) -> Measured:
        """Reads the promoted release."""
        release = promoted(federation)
        codec = release.generator.codec
        expected = federation.releases.expected(federation.releases.measured().id).flatten(0, 1)
        return cls(
            config=federation.config,
            release=release,
            targets=codec.encode(release.records.weights),
            expected=codec.encode(expected),
        )

    def models(self) -> dict[str, Draw]:
        """Fitted models by name."""
        config, generator = self.config, self.release.generator
        shape, spread, group = generator.codec.shape, generator.spread, config.probe.episodes
        data = (self.targets, self.expected)
        found: dict[str, Draw] = {}
        for source in ("prior", "gaussian"):
            flow = replace(config.flow, source=source)
            rng = generator_for(config.lineage, "benchmark", source)
            fit = fit_flow(*data, spread, shape, flow, rng, group=group)
            found[f"flow, {source}"] = partial(_flow, fit.field)
            straight = reflow(fit, self.expected, flow, rng, group=group)
            found[f"reflow, {source}"] = partial(_flow, straight.field)
        rng = generator_for(config.lineage, "benchmark", "diffusion")
        model = fit_diffusion(*data, shape, config.flow, rng, group=group).model

        def diffused(
            context: Tensor, rng: torch.Generator, count: int, width: float, *, sampler: str
        ) -> Tensor:
            return sample_diffusion(
                model, context, shape, rng, sampler=sampler, evaluations=count, temperature=width
            )

        found["diffusion, ddim"] = partial(diffused, sampler="ddim")
        found["diffusion, ddpm"] = partial(diffused, sampler="ddpm")
        return found


@torch.no_grad()
def _flow(
    field: VelocityField, context: Tensor, rng: torch.Generator, count: int, width: float
) -> Tensor:
    start = draw(field.source, context, field.spread, field.shape, rng, temperature=width)
    solver = "euler" if count == 1 else "midpoint"
    return solve(guided(field, context), start, solver=solver, evaluations=count)


def job(seed: int, sites: int, held_out: int, rounds: int, data: str) -> dict[str, dict[str, Any]]:
    """Accuracies at every held-out site and time, by model and evaluations."""
    with laid_out(seed, sites, held_out, data) as (federation, divided):
        run_inline(federation, rounds)
        measured = Measured.of(federation)
        parts = held_out_sites(divided)
        every = [site for part in parts.values() for site in part or ()]
        found = {"Gaussian, prior": {0: _row(measured, every, _gaussian(measured), 0)}}
        for name, model in measured.models().items():
            found[name] = {n: _row(measured, every, model, n) for n in EVALUATIONS}
        return found


def _gaussian(measured: Measured) -> Draw:
    def drawn(context: Tensor, rng: torch.Generator, _: int, width: float) -> Tensor:
        generator = measured.release.generator
        return draw(
            "prior", context, generator.spread, generator.codec.shape, rng, temperature=width
        )

    return drawn


def _row(
    measured: Measured, sites: list[HeldOutSite], model: Draw, evaluations: int
) -> dict[str, Any]:
    accuracies = [_at_site(measured.release, site, model, evaluations) for site in sites]
    rng = torch.Generator().manual_seed(0)
    context = measured.expected[:1].expand(100, -1)
    seconds = []
    for _ in range(TIMED):
        began = perf_counter()
        model(context, rng, evaluations, 1.0)
        seconds.append(perf_counter() - began)
    return {"accuracies": accuracies, "ms": 1000 * median(seconds)}


def _at_site(
    release: ServedRelease, site: HeldOutSite, model: Draw, evaluations: int
) -> tuple[float, float]:
    """Mean accuracy of single draws, and accuracy of the mean of the best."""
    target, generator = release.target, release.generator
    expected = generator.expect(release.context(site)[None])
    latent = generator.codec.encode(expected)

    def networks(count: int, width: float) -> Tensor:
        rng = generator_for(release.lineage, site.name, "benchmark", count)
        centre = latent.expand(count, -1)
        end = model(centre, rng, evaluations, width)
        return expected + generator.codec.displacement(centre, end)

    choice = release.candidates
    many = networks(choice.samples, choice.temperature)
    offered = {candidate_kinds.sample(index): weights for index, weights in enumerate(many)}
    chosen = select(target, offered, *site.train, keep=choice.keep)[1]
    ones = [loss_and_accuracy(target, w, *site.test)[1] for w in networks(SINGLE, 1.0)]
    return sum(ones) / SINGLE, loss_and_accuracy(target, chosen, *site.test)[1]


def summarise(by_seed: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each model and number of evaluations, over all seeds."""
    rows = []
    for name, counts in by_seed[0].items():
        for count in counts:
            found = [seed[name][count] for seed in by_seed]
            values = torch.tensor([pair for one in found for pair in one["accuracies"]]).double()
            rows.append(
                {
                    "model": name,
                    "evaluations": count,
                    "accuracy": dict(zip(("one", "chosen"), values.mean(0).tolist(), strict=True)),
                    "ci95": dict(zip(("one", "chosen"), half_width(values).tolist(), strict=True)),
                    "ms": median(one["ms"] for one in found),
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    print(f"{'model':<18}{'evaluations':>12}{'one':>15}{'chosen':>15}{'ms':>9}")
    for row in rows:
        cells = "".join(
            f"{row['accuracy'][k]:>8.3f} ±{row['ci95'][k]:.3f}" for k in ("one", "chosen")
        )
        print(f"{row['model']:<18}{row['evaluations']:>12}{cells}{row['ms']:>9.2f}")


def plot(rows: list[dict[str, Any]], path: Any) -> None:
    """Draws accuracy of single draws against evaluations and against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("evaluations", "ms"), strict=True):
        for name in dict.fromkeys(row["model"] for row in rows):
            mine = [row for row in rows if row["model"] == name and row["evaluations"]]
            if mine:
                heights = [row["accuracy"]["one"] for row in mine]
                axes.plot([row[key] for row in mine], heights, marker="o", label=name)
        plain = next(row for row in rows if not row["evaluations"])
        axes.axhline(plain["accuracy"]["one"], color="black", linestyle=":", label=plain["model"])
        axes.set_xscale("log")
        axes.set_xlabel("evaluations" if key == "evaluations" else "ms for 100 latents")
    figure.axes[0].set_ylabel("accuracy of one draw, before any step")
    figure.axes[0].legend()
    figure.savefig(path)
    print(f"plot in {path}")


def main() -> None:
    """Runs every seed."""
    chosen = options(__doc__ or "", plot=True)
    sites, held_out, rounds = (20, 6, 3) if chosen.quick else (40, 30, 6)
    jobs = [(seed, sites, held_out, rounds, chosen.data) for seed in range(chosen.seeds)]
    rows = summarise(side_by_side(job, jobs))
    show(rows)
    write_json(chosen.json, {"seeds": chosen.seeds, "rows": rows})
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
