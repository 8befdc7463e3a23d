"""The accuracy that lying sites cost where all sites share a body and heads are generated.

`python -m tests.benchmarks.poison_body [--quick] [--seeds N] [--data NAMES] [--json OUT.json]`

Few-shot sites train a body over eight rounds in one process, by the functions that sites and server
call (`tests.benchmarks.bodies`), and send heads on the last one; 30% of them lie, in the body of
every round or in the heads. ``defended`` is what the server does: a robust average of bodies, and a
filter of heads before the prior is fitted; ``plain`` is the mean and no filter. Accuracy is that of
a held-out site's network without a step: the generated head, refitted on its 25 examples.
Differences are from plain averages and fits without liars of the same seed, paired by site, with
Student's 95%. ``caught`` is the share of lying sites whose heads are left out, ``lost`` the number
of honest ones a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.generator.residual_filter import left_out_sites
from f2l_fed.local_training.logistic_head import flat, rows
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.benchmarks.bodies import HELD_OUT, ROUNDS, SITES, FewShot
from tests.benchmarks.common import options, paired, write_json

SHARE = 0.3
NOBODY = "nobody lies"

BodyLie = Callable[[Tensor, Tensor], Tensor]
"""From an honest change of the body and a direction that all liars know, the change sent."""

HeadLie = Callable[[Tensor, int, torch.Generator], Tensor]
"""From honest (E, H) heads on all examples, the number of classes and chance, those sent."""


def _permuted(heads: Tensor, classes: int, rng: torch.Generator) -> Tensor:
    """The outputs of every head in another order, none in its place."""
    shift = 1 + torch.randint(classes - 1, (len(heads),), generator=rng)
    return torch.stack(
        [
            flat(rows(head, classes).roll(int(by), dims=0))
            for head, by in zip(heads, shift, strict=True)
        ]
    )


BODY_LIES: Mapping[str, BodyLie] = {
    "body's change x -5": lambda change, *_: -5 * change,
    "turned to one direction": lambda change, common: change + 1.5 * common * change.norm(),
}
HEAD_LIES: Mapping[str, HeadLie] = {
    "heads x -5": lambda heads, *_: -5 * heads,
    "heads x -1": lambda heads, *_: -heads,
    "heads permuted": _permuted,
}

WORST, FLIPPED = "body's change x -5", "heads x -5"


@dataclass(frozen=True, slots=True)
class Found:
    """Accuracies by kind of held-out site, and what the filter of heads has left out."""

    accuracy: dict[str, list[float]]
    caught: float
    lost: int


@dataclass(frozen=True, slots=True)
class Lies:
    """A federation and who lies in it."""

    federation: FewShot
    liars: frozenset[int]

    @classmethod
    def of(cls, federation: FewShot) -> Lies:
        """Draws the liars."""
        count = len(federation.sites)
        order = torch.randperm(count, generator=generator_for(federation.lineage, "liars"))
        return cls(federation, frozenset(order[: round(SHARE * count)].tolist()))

    def body(self, lie: BodyLie | None, rounds: int, *, robust: bool) -> Tensor:
        """(B,) float32, the body after all rounds."""
        lineage = self.federation.lineage

        def told(number: int, weights: Tensor, results: list[Tensor]) -> list[Tensor]:
            if lie is None:
                return results
            common = torch.randn(weights.shape, generator=generator_for(lineage, "league"))
            common /= common.norm()
            return [
                weights + lie(result - weights, common) if site in self.liars else result
                for site, result in enumerate(results)
            ]

        return self.federation.rounds(self.federation.trained, told, rounds, robust=robust)

    def heads(
        self, body: Tensor, pairs: tuple[Tensor, Tensor], lie: HeadLie | None, *, robust: bool
    ) -> Found:
        """What a release on these heads is worth to new sites."""
        contexts, weights = pairs[0], pairs[1].clone()
        classes, target = self.federation.body.network.classes, self.federation.body.head
        if lie is not None:
            for site in sorted(self.liars):
                rng = generator_for(self.federation.lineage, site, "lie")
                weights[site] = lie(weights[site], classes, rng)
        symmetry = OutputSymmetry.of(target, enabled=True)
        odd = left_out_sites(contexts, weights, symmetry) if robust else {}
        kept = [site for site in range(len(weights)) if site not in odd]
        prior = fit_prior(
            contexts[kept], weights[kept], symmetry, torch.zeros(target.layout.size)
        ).prior
        return Found(
            self.federation.accuracies(body, prior),
            caught=len(self.liars & odd.keys()) / len(self.liars),
            lost=len(odd.keys() - self.liars),
        )


def job(federation: FewShot, rounds: int) -> dict[str, Found]:
    """Every attack on one federation."""
    lies, found = Lies.of(federation), dict[str, Found]()
    for robust in (False, True):
        name = ("plain", "defended")[robust]
        body = lies.body(None, rounds, robust=robust)
        pairs = federation.pairs(body)
        for attack, lie in {NOBODY: None, **HEAD_LIES}.items():
            found[f"{attack}, {name}"] = lies.heads(body, pairs, lie, robust=robust)
    for attack, lie_body in BODY_LIES.items():
        body = lies.body(lie_body, rounds, robust=True)
        pairs = federation.pairs(body)
        for heads in (None, FLIPPED) if attack == WORST else (None,):
            told = f"{attack}, {heads}" if heads else attack
            lie = HEAD_LIES[heads] if heads else None
            found[f"{told}, defended"] = lies.heads(body, pairs, lie, robust=True)
    return found


def main() -> None:
    """Runs every attack; prints a table, and writes the figures if asked to, after each seed."""
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    sites, held_out, rounds = (10, 6, 2) if asked.quick else (SITES, HELD_OUT, ROUNDS)
    runs: list[dict[str, Found]] = []
    for seed in range(asked.seeds):
        runs.append(job(FewShot.of(seed, asked.data, sites=sites, held_out=held_out), rounds))
        print(f"{sites} sites, {rounds} rounds, {len(runs)} seeds; accuracy, and points lost")
        setup = {"sites": sites, "rounds": rounds, "seeds": len(runs), "share": SHARE}
        write_json(asked.json, {**setup, "rows": tables(runs)})


def tables(runs: Sequence[dict[str, Found]]) -> dict[str, dict[str, Any]]:
    """The figures of every attack over some seeds, which are printed."""
    found = {}
    for name in runs[0]:
        parts = {
            kind: paired(
                _column([run[name].accuracy[kind] for run in runs]),
                _column([run[f"{NOBODY}, plain"].accuracy[kind] for run in runs]),
            )
            for kind in runs[0][name].accuracy
        }
        caught = fmean(run[name].caught for run in runs)
        lost = fmean(run[name].lost for run in runs)
        found[name] = {**parts, "caught": caught, "lost": lost}
        cells = "".join(f"{kind:>8} {_cell(row)}" for kind, row in parts.items())
        print(f"{name:40}{cells}  caught {caught:5.0%}  lost {lost:4.1f}", flush=True)
    return found


def _column(parts: list[list[float]]) -> Tensor:
    values = [value for part in parts for value in part]
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _cell(row: dict[str, list[float]]) -> str:
    lost, half = -100 * row["difference"][0], 100 * row["ci95"][0]
    return f"{100 * row['accuracy'][0]:6.1f}{lost:6.1f} ±{half:4.1f}"


if __name__ == "__main__":
    main()
