"""Gain of a generated start: accuracy at held-out sites after n local steps, for every arm.

`python -m tests.benchmarks.whole_networks [--quick] [--seeds N] [--json OUT.json] [--plot OUT.svg]`

For each seed and each number of training sites a federation is run for eight rounds with the
real apps over the loopback grid, and the held-out sites are measured after the first, the third
and the eighth. Besides the product's own arms there are null arms. With the same number of draws,
the same choice at the site and the same mean of the best: ``fedavg_drawn``, networks around that
of federated averaging, spread as the returned ones are, and ``diffusion``, a latent diffusion on
the same latents and contexts with the flow's own size, schedule and evaluations. Without any
choice: ``fedavg`` for as many rounds, the prior without the output symmetry (``prior_plain``),
fitted again on the last records, and one draw from the flow (``sample``).

The intervals are Student's 95% intervals over sites and seeds together; ``spread`` in the JSON is
the standard deviation of the seeds' means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import Partition
from f2l_fed.evaluation.arm_names import label
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure, starts
from f2l_fed.evaluation.summary import summarise
from f2l_fed.flow import Denoiser, fit_diffusion, sample_diffusion
from f2l_fed.local_training import candidate_kinds
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import anchor
from f2l_fed.local_training.selection import select
from f2l_fed.prior.linear_prior import Prior, fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from server.federation.folder import Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

MEASURED = (1, 3, 8)
DRAWN = {
    "random": "#bbbbbb",
    "fedavg": "#228833",
    "soup": "#ccbb44",
    "probe": "#66ccee",
    "prior": "#ee6677",
    "generated": "#4477aa",
}
"""Colours of the arms in the plot."""
LABELS = {"fedavg": "FedAvg, as many rounds"}
"""Names of the null arms in the plot."""


def job(seed: int, sites: int, held_out: int, data: str) -> dict[int, dict[str, Any]]:
    """Curves of all held-out sites by round, kind and site."""
    with laid_out(seed, sites, held_out, data) as (federation, divided):
        averaged = fedavg(federation, divided, max(MEASURED))
        found = {}
        for number in range(1, max(MEASURED) + 1):
            run_inline(federation, 1)
            if number in MEASURED:
                found[number] = curves(federation, divided, averaged[number])
        return found


def fedavg(federation: Federation, divided: Partition, rounds: int) -> dict[int, Tensor]:
    """The global network after each round of federated averaging with the same local recipes."""
    config, target = federation.config, federation.target
    weights, found = anchor(target, config.lineage), {}
    for number in range(1, rounds + 1):
        recipe = config.first if number == 1 else config.later
        returned = [
            finetune(
                target,
                weights,
                torch.from_numpy(site.x_train),
                torch.from_numpy(site.y_train),
                recipe,
                generator_for(config.lineage, "fedavg", number, site.name),
            )
            for site in divided.sites
        ]
        weights = torch.stack(returned).mean(0)
        found[number] = weights
    return found


def curves(
    federation: Federation, divided: Partition, averaged: Tensor
) -> dict[str, list[dict[str, list[float]]]]:
    """Accuracy of all arms at every held-out site, by kind of site."""
    config = federation.config
    null = Null.of(federation, averaged)
    found: dict[str, list[dict[str, list[float]]]] = {}
    for kind, sites in held_out_sites(divided).items():
        for site in sites or ():
            arms = starts(null.release, site) | null.arms(site)
            found.setdefault(kind, []).append(
                measure(federation.target, arms, site, config.local, config.lineage)
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """The models behind the null arms.

    Args:
        release: The promoted release.
        averaged: (D,) float32, the network of federated averaging.
        plain: A prior without the output symmetry, on the same records.
        denoiser: A latent diffusion on them.
    """

    release: ServedRelease
    averaged: Tensor
    plain: Prior
    denoiser: Denoiser

    @classmethod
    def of(cls, federation: Federation, averaged: Tensor) -> Null:
        """Fits them on the records of the promoted release."""
        config = federation.config
        release, id = promoted(federation), federation.releases.measured().id
        generator, records = release.generator, release.records
        expected, episodes = federation.releases.expected(id), config.probe.episodes
        return cls(
            release=release,
            averaged=averaged,
            plain=fit_prior(
                records.contexts.view(len(expected), episodes, -1),
                records.weights.view(len(expected), episodes, -1),
                OutputSymmetry.of(federation.target, enabled=False),
                generator.prior.anchor,
            ).prior,
            denoiser=fit_diffusion(
                generator.codec.encode(records.weights),
                generator.codec.encode(expected.flatten(0, 1)),
                generator.codec.shape,
                config.flow,
                generator_for(config.lineage, id, "diffusion"),
                group=episodes,
            ).model,
        )

    def arms(self, site: HeldOutSite) -> dict[str, Tensor]:
        """The null arms' starts for one held-out site."""
        release, context = self.release, self.release.context(site)
        expected = release.generator.expect(context[None])
        rng = generator_for(release.lineage, site.name, "benchmark")

        def chosen(drawn: Tensor) -> Tensor:
            offered = {candidate_kinds.sample(i): weights for i, weights in enumerate(drawn)}
            return select(release.target, offered, *site.train, keep=release.candidates.keep)[1]

        return {
            "fedavg": self.averaged,
            "fedavg_drawn": chosen(self._around_average(rng)),
            "prior_plain": self.plain(context[None])[0],
            "sample": release.generator.sample(expected, rng)[0],
            "diffusion": chosen(self._diffused(expected, rng)),
        }

    def _around_average(self, rng: torch.Generator) -> Tensor:
        weights = self.release.records.weights
        off = weights - weights.mean(0)
        mix = torch.randn(self.release.candidates.samples, len(off), generator=rng)
        return self.averaged + mix @ off / len(off) ** 0.5

    def _diffused(self, expected: Tensor, rng: torch.Generator) -> Tensor:
        choice, generator = self.release.candidates, self.release.generator
        codec = generator.codec
        context = codec.encode(expected).expand(choice.samples, -1)
        end = sample_diffusion(
            self.denoiser,
            context,
            codec.shape,
            rng,
            evaluations=generator.config.sample.evaluations,
            temperature=choice.temperature,
        )
        return expected + codec.displacement(context, end)


def table(title: str, part: dict[str, Any]) -> None:
    """Prints one part as the product's result has it."""
    print(f"\n{title}")
    print(f"{'start':<14}" + "".join(f"{f'{n} steps':>14}" for n in part["steps"]))
    for arm, row in part["arms"].items():
        cells = zip(row["accuracy"], row["ci95"], strict=True)
        print(f"{arm:<14}" + "".join(f"{f'{a:.3f} ±{c:.3f}':>14}" for a, c in cells))


def plot(title: str, parts: dict[str, Any], path: Any) -> None:
    """Draws accuracy against local steps for each kind of site, with the 95% intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle(title)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("seen", "unseen"), strict=True):
        axes.set_title(f"{kind} classes")
        axes.set_xlabel("local gradient steps")
        axes.set_xscale("symlog", linthresh=1)
        if parts[kind] is None:
            continue
        steps = parts[kind]["steps"]
        axes.set_xticks(steps, [str(n) for n in steps])
        for arm, colour in DRAWN.items():
            row = parts[kind]["arms"][arm]
            name = LABELS.get(arm) or label(arm)
            axes.errorbar(steps, row["accuracy"], row["ci95"], label=name, color=colour, marker=".")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)
    print(f"plot in {path}")


def main() -> None:
    """Runs all jobs and prints a table for each number of sites, round and kind of site."""
    chosen = options(__doc__ or "", plot=True)
    sizes, held_out = ((20,), 6) if chosen.quick else ((40, 200), 30)
    jobs = [
        (seed, n, held_out, chosen.data) for n in reversed(sizes) for seed in range(chosen.seeds)
    ]
    results = dict(zip(jobs, side_by_side(job, jobs), strict=True))
    figures: dict[str, Any] = {"seeds": chosen.seeds, "held_out": {}}
    for sites in sizes:
        for measured in MEASURED:
            title = f"{sites} training sites, after round {measured}"
            figures["held_out"][title] = parts = {}
            for kind in ("seen", "unseen"):
                by_seed = [
                    results[seed, sites, held_out, chosen.data][measured].get(kind)
                    for seed in range(chosen.seeds)
                ]
                parts[kind] = None if None in by_seed else over_seeds(by_seed)
                if parts[kind] is not None:
                    table(f"{title}, {kind} classes", parts[kind])
    if chosen.plot:
        plot(title, parts, chosen.plot)
    write_json(chosen.json, figures)


def over_seeds(by_seed: list[list[dict[str, list[float]]]]) -> dict[str, Any]:
    """The summary over all sites of all seeds, with the standard deviation of the seeds' means."""
    part = summarise([curve for curves in by_seed for curve in curves])
    for arm, row in part["arms"].items():
        means = torch.tensor([[curve[arm] for curve in curves] for curves in by_seed]).mean(1)
        row["spread"] = [round(value, 4) for value in means.std(0, correction=0).tolist()]
    return part


if __name__ == "__main__":
    main()
