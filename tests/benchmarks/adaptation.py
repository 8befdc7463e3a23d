"""Adaptation to a task that no training site has, from one site that shows it.

`python -m tests.benchmarks.adaptation [--quick] [--seeds N] [--json OUT.json] [--plot OUT.svg]`

A federation of 40 sites over six rounds is adapted to one held-out site with unseen classes, from
its 25 examples (`f2l_fed.generator.recall`). Then other sites get their starts: its ``sibling``, a
new site with other images of the same classes through the same camera, its labels permuted; ``other
unseen``, the next held-out site, which may have up to all of its classes, mostly through another
camera; and ``seen``, a site with classes of the training sites. A sibling's examples come from its
site's test set and are measured no more, and images that any remembered site trained on are
measured nowhere.

Two arms are what recall is compared with: ``kernel update``, the exact regularised gradient flow
of the prior on the one record, and ``memory as it is``, the first site's network without putting
its labels in order. ``one of all memories`` recalls from all sites with unseen classes, but for
the new site itself, and not from one.

The second part compares local steps on the weights with steps on the latent coordinates of the
codec, from the prior and from the shipped choice. Differences are paired by site, their intervals
Student's 95% over the sites of all seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure
from f2l_fed.evaluation.summary import half_width
from f2l_fed.generator.recall import RecallingGenerator, RememberedTask, remember
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import accuracy_after, loss_and_accuracy
from f2l_fed.prior.linear_prior import Prior
from f2l_fed.symmetry.output_permutation import IsotypicParts
from server.federation.folder import Federation
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

STEPS = (0, 1, 5, 20)
LOCAL = (0, 1, 2, 5, 10, 20)
SHOWN = 20
"""Local steps of the site that shows its task."""

STRENGTH = 0.1
"""Of the kernel update's ridge, relative to the record's own mean similarity."""

RATE = 7.0
"""Learning rate of a latent step, in widths of the prior's error."""

Curves = dict[str, list[dict[str, list[float]]]]
"""By group: for every site, by arm, accuracy after each number of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A release, and the local steps of the sites that it serves."""

    release: ServedRelease
    recipe: Recipe

    @classmethod
    def of(cls, federation: Federation) -> Service:
        """The service of the promoted release."""
        return cls(release=promoted(federation), recipe=federation.config.local)

    def context(self, site: HeldOutSite) -> Tensor:
        """(D,) float32, the site's probe."""
        return self.release.context(site)

    def chosen(self, site: HeldOutSite, expected: Tensor) -> Tensor:
        """The site's choice if (D,) weights are expected of it."""
        return self.release.chosen(site, self.context(site), expected)

    def remembered(self, site: HeldOutSite) -> RememberedTask:
        """The task that the site shows."""
        release, context = self.release, self.context(site)
        offered = release.candidates_of(site, context, release.generator.expect(context[None])[0])
        recipe = replace(self.recipe, steps=SHOWN)
        rng = generator_for(release.lineage, site.name, "remember")
        keep = release.candidates.keep
        return remember(release.target, context, offered, *site.train, recipe, rng, keep=keep)


def job(seed: int, sites: int, held_out: int, rounds: int, data: str) -> tuple[Curves, Curves]:
    """Curves of both parts."""
    with laid_out(seed, sites, held_out, data) as (federation, divided):
        run_inline(federation, rounds)
        service, parts = Service.of(federation), held_out_sites(divided)
    unseen, seen = parts["unseen"] or [], parts["seen"] or []
    return starts(service, unseen, seen), steps(service, {"unseen": unseen, "seen": seen})


def starts(service: Service, unseen: Sequence[HeldOutSite], seen: Sequence[HeldOutSite]) -> Curves:
    """All starts at the new sites of each group, after every unseen site has shown its task."""
    memories = [service.remembered(site) for site in unseen]
    used = {image for site in unseen for image in _images(site.train[0])}

    def curve(
        site: HeldOutSite, shown: int, others: Sequence[RememberedTask]
    ) -> dict[str, list[float]]:
        site = _without(site, used)
        arms = arms_of(service, site, memories[shown], others)
        release = service.release
        return measure(release.target, arms, site, service.recipe, release.lineage, STEPS)

    found: Curves = {"sibling": [], "other unseen": [], "seen": []}
    for index, site in enumerate(unseen):
        next_one = (index + 1) % len(unseen)
        others = [memory for other, memory in enumerate(memories) if other != next_one]
        found["sibling"].append(curve(sibling(site), index, memories))
        found["other unseen"].append(curve(unseen[next_one], index, others))
        found["seen"].append(curve(seen[index], index, memories))
    return found


def arms_of(
    service: Service, site: HeldOutSite, memory: RememberedTask, memories: Sequence[RememberedTask]
) -> dict[str, Tensor]:
    """The starts of one site."""
    context = service.context(site)[None]
    expected = service.release.generator.expect(context)
    one = RecallingGenerator(generator=service.release.generator, memories=(memory,))
    recalled = one.expect(context)[0]
    of_many = replace(one, memories=tuple(memories)).expect(context)[0]
    ungated = expected.lerp(one.recall(context).weights, one.config.share)[0]
    return {
        "prior": expected[0],
        "shipped choice": service.chosen(site, expected[0]),
        "recall": recalled,
        "choice around recall": service.chosen(site, recalled),
        "recall without gate": ungated,
        "one of all memories": of_many,
        "kernel update": kernel_update(service.release.generator.prior, context, memory)[0],
        "memory as it is": memory.weights,
    }


def kernel_update(prior: Prior, contexts: Tensor, memory: RememberedTask) -> Tensor:
    """(n, D) float32, what the prior expects after it was regressed on one more record."""
    symmetry = prior.symmetry
    missed = symmetry.split(memory.weights[None] - prior(memory.context[None]))
    new, old = symmetry.split(contexts), symmetry.split(memory.context[None])

    def moved(new: Tensor, old: Tensor, target: Tensor) -> Tensor:
        kernel = old @ old.T
        ridge = STRENGTH * kernel.diagonal().mean() * torch.eye(len(kernel))
        return new @ old.T @ torch.linalg.solve(kernel + ridge, target)

    mean = prior.common.x_mean
    common = moved(new.common - mean, old.common - mean, missed.common)
    rows = moved(new.rows.flatten(0, 1), old.rows[0], missed.rows[0]).view_as(new.rows)
    return prior(contexts) + symmetry.join(IsotypicParts(common, rows))


def sibling(site: HeldOutSite) -> HeldOutSite:
    """A new site: other images of the same classes, from the test set, its labels permuted."""
    (x, y), rng = site.test, generator_for(site.name, "sibling")
    order = torch.randperm(int(y.max()) + 1, generator=rng)
    shots = len(site.train[1]) // len(order)
    drawn = torch.randperm(len(y), generator=rng)
    few = torch.cat([drawn[y[drawn] == label][:shots] for label in y.unique().tolist()])
    rest = torch.ones(len(y), dtype=torch.bool).index_fill(0, few, False)
    y = order[y]
    return HeldOutSite(name=f"{site.name}-sibling", train=(x[few], y[few]), test=(x[rest], y[rest]))


def _images(x: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in x]


def _without(site: HeldOutSite, used: set[bytes]) -> HeldOutSite:
    """The site, tested on images that are not among those used."""
    x, y = site.test
    fresh = torch.tensor([image not in used for image in _images(x)])
    return replace(site, test=(x[fresh], y[fresh]))


def steps(service: Service, parts: Mapping[str, Sequence[HeldOutSite]]) -> Curves:
    """All ways of stepping from the prior and from the shipped choice."""
    found: Curves = {}
    for kind, sites in parts.items():
        for site in sites:
            expected = service.release.generator.expect(service.context(site)[None])[0]
            begin = {"prior": expected, "shipped choice": service.chosen(site, expected)}
            for name, start in begin.items():
                curve = ways_of(service, site, start)
                found.setdefault(f"{kind}, from the {name}", []).append(curve)
    return found


def ways_of(service: Service, site: HeldOutSite, start: Tensor) -> dict[str, list[float]]:
    """Accuracy after each number of local steps."""
    target, recipe = service.release.target, service.recipe

    def plain(momentum: float) -> list[float]:
        rng, some = generator_for(site.name, "local"), replace(recipe, momentum=momentum)
        return accuracy_after(target, start, site.train, site.test, some, rng, LOCAL)

    latent = dict(enumerate(latent_iterates(service, start, *site.train, max(LOCAL))))
    return {
        "weights, as shipped": plain(recipe.momentum),
        "weights, no momentum": plain(0),
        "latent, no momentum": [
            loss_and_accuracy(target, latent[step], *site.test)[1] for step in LOCAL
        ],
    }


def latent_iterates(
    service: Service, start: Tensor, x: Tensor, y: Tensor, count: int
) -> Iterator[Tensor]:
    """Weights after each of so many gradient steps of the latent, from none on.

    The latent moves in widths of the prior's error, so that a step is long where what is expected
    is uncertain; what of the start lies outside the latent space stays.
    """
    generator, target = service.release.generator, service.release.target
    codec, spread = generator.codec, generator.spread
    origin = codec.encode(start[None])
    moved = torch.zeros_like(origin)
    for _ in range(count + 1):
        moved = moved.detach().requires_grad_()
        weights = start + codec.displacement(origin, origin + spread * moved)[0]
        yield weights.detach()
        loss = functional.cross_entropy(target.training_logits(weights, x), y)
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved - RATE * gradient


def compare(curves: Curves, base: str) -> dict[str, Any]:
    """By group and arm: mean accuracy, and the paired difference from one of the arms."""
    table: dict[str, Any] = {}
    for group, sites in curves.items():
        values = {arm: torch.tensor([site[arm] for site in sites]).double() for arm in sites[0]}
        table[group] = {
            arm: {
                **(found := paired(value, values[base])),
                "ci95": half_width(value).tolist(),
                "difference_ci95": found["ci95"],
            }
            for arm, value in values.items()
        }
    return table


def show(table: dict[str, Any], counts: Sequence[int], base: str) -> None:
    """Prints one part."""
    for group, arms in table.items():
        print(f"\n{group}: accuracy after n local steps, and difference from {base!r}")
        print(
            f"{'':<21}" + "".join(f"{n:>7}" for n in counts) + "".join(f"{n:>15}" for n in counts)
        )
        for arm, part in arms.items():
            differences = zip(part["difference"], part["difference_ci95"], strict=True)
            print(
                f"{arm:<21}"
                + "".join(f"{accuracy:>7.3f}" for accuracy in part["accuracy"])
                + "".join(f"{d:>+8.3f} ±{c:.3f}" for d, c in differences)
            )


def plot(adapted: dict[str, Any], local: dict[str, Any], path: Any) -> None:
    """Draws the starts before any step, and the ways of stepping."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1)
    for axes, (group, arms) in zip(above.subplots(1, 3, sharey=True), adapted.items(), strict=True):
        values = [part["accuracy"][0] for part in arms.values()]
        errors = [part["ci95"][0] for part in arms.values()]
        axes.barh(list(arms), values, xerr=errors, color="#4477aa", error_kw={"linewidth": 1})
        axes.axvline(arms[CHOICE]["accuracy"][0], color="black", linewidth=1, linestyle=":")
        axes.set_title(f"{group} sites")
        axes.set_xlabel("accuracy before any step")
        axes.invert_yaxis()
    above.axes[0].invert_yaxis()
    for axes, (group, arms) in zip(below.subplots(1, len(local)), local.items(), strict=True):
        for arm, part in arms.items():
            axes.plot(range(len(LOCAL)), part["accuracy"], marker=".", label=arm)
        axes.set_xticks(range(len(LOCAL)), [str(n) for n in LOCAL])
        axes.set_title(group, fontsize=10)
        axes.set_xlabel("local steps")
    below.axes[0].set_ylabel("accuracy")
    below.axes[0].legend(fontsize=8)
    figure.savefig(path)
    print(f"plot in {path}")


CHOICE = "shipped choice"
PLAIN = "weights, as shipped"


def main() -> None:
    """Runs every seed."""
    chosen = options(__doc__ or "", plot=True)
    size = (20, 6, 4) if chosen.quick else (40, 30, 6)
    found = side_by_side(job, [(seed, *size, chosen.data) for seed in range(chosen.seeds)])
    adapted, local = (
        {group: [site for part in parts for site in part[group]] for group in parts[0]}
        for parts in zip(*found, strict=True)
    )
    tables = compare(adapted, CHOICE), compare(local, PLAIN)
    show(tables[0], STEPS, CHOICE)
    show(tables[1], LOCAL, PLAIN)
    figures = {"steps": STEPS, "starts": tables[0], "local_steps": LOCAL, "local": tables[1]}
    write_json(chosen.json, {"seeds": chosen.seeds, **figures})
    if chosen.plot:
        plot(*tables, chosen.plot)


if __name__ == "__main__":
    main()
