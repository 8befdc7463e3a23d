"""Networks for one task without any context, against everything simpler.

`python -m tests.benchmarks.unconditional [--quick] [--seeds N] [--json FILE] [--plot FILE]`

Every data set of ``--data`` is a task, and one-hidden-layer perceptrons of two widths are trained
on 4,000 of its images, each from an initialisation and with batches of its own. Four fifths of the
networks are what is learned from. A hundred networks are drawn of each kind, and none of them is
fine-tuned or chosen. Rows:

* ``trained, held out``: networks that nothing was fitted on, what generated ones should be like.
* ``generated, N``: from the Gaussian source with N evaluations, canonical weights if the held-out
  round trip says so; with 16 components instead of 64; from encoded random initialisations; and
  with weights as they are.
* null arms: a Gaussian in the latent space, the mean network, means of two networks, random mixes
  of two, networks with noise as far from them as generated ones are from theirs, initialisations.

``of trained`` is the mean accuracy relative to the networks learned from, with Student's 95%
interval over seeds, and so are ``worst`` and ``best``, the extremes of one seed. ``spread``
is the dispersion, 1 is right. ``distance`` is the median distance to the nearest network learned
from, relative to the median of these to each other; ``Z`` is negative where networks lie nearer
than held-out ones; ``IoU`` is the mean of the largest overlap of errors with any of them. ``ms`` is
CPU time for one network, the median.

Training is short, so the mean network may be better than those it is the mean of. One evaluation
leads to it by construction, so judge a row by accuracy, spread and ``Z`` together. Everything takes
some twelve minutes of CPU time, one data set half of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from time import process_time
from typing import Any

import torch
from torch import Tensor

from f2l_fed.audit.diagnostics import (
    dispersion,
    leave_one_out_distances,
    max_error_iou,
    memorisation_z,
    nearest_distances,
)
from f2l_fed.codec.config import CodecConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import load_dataset
from f2l_fed.evaluation.summary import half_width
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.unconditional import Unconditional, UnconditionalConfig, fit_unconditional
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.targets import Target
from f2l_fed.targets.networks.mlp import mlp
from tests.benchmarks.common import options, side_by_side, write_json

TRAIN, TEST = 4_000, 1_000
DRAWN = 100
TIMED = 5
FEW = 16
"""Components of the arm with a smaller latent space."""

Examples = tuple[Tensor, Tensor]
FIGURES = ("accuracy", "of_trained", "worst", "best", "spread", "distance", "z", "iou", "ms")


def examples(data: str, seed: int) -> tuple[Examples, Examples]:
    """Images and labels to train and to test on, without a common image."""
    dataset = load_dataset(data)
    order = torch.randperm(len(dataset.x), generator=generator_for(seed, data))[: TRAIN + TEST]
    x, y = (torch.from_numpy(values)[order] for values in (dataset.x, dataset.y))
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoo:
    """Trained networks of one task.

    Args:
        target: What they are networks of.
        seen: (n, D) float32, to learn from.
        held_out: (h, D) float32, just as good.
        test: Examples that none was trained on.
        seconds: Median CPU time of training one.
    """

    target: Target
    seen: Tensor
    held_out: Tensor
    test: Examples
    seconds: float

    @classmethod
    def trained(cls, data: str, hidden: int, count: int, steps: int, seed: int) -> Zoo:
        """Trains ``count`` networks."""
        train, test = examples(data, seed)
        shape, classes = tuple(train[0].shape[1:]), int(train[1].max()) + 1
        target = Target.of(f"mlp-{hidden}", partial(mlp, shape, classes, hidden), shape, classes)
        recipe = Recipe(steps=steps, lr=0.05, batch=64)
        networks, seconds = [], []
        for index in range(count):
            rng = generator_for(seed, data, hidden, index)
            began = process_time()
            networks.append(finetune(target, target.initialise(rng), *train, recipe, rng))
            seconds.append(process_time() - began)
        cut = count * 4 // 5
        weights = torch.stack(networks)
        return cls(
            target=target,
            seen=weights[:cut],
            held_out=weights[cut:],
            test=test,
            seconds=median(seconds),
        )

    @torch.no_grad()
    def errors(self, weights: Tensor) -> Tensor:
        """(n, t) bool, where each network's prediction on the test examples is wrong."""
        x, y = self.test
        return torch.stack([self.target.logits(row, x).argmax(1) != y for row in weights])

    def figures(
        self, weights: Tensor, form: Callable[[Tensor], Tensor], seconds: float
    ) -> dict[str, float | None]:
        """All figures of some networks in the given form."""
        seen, held_out = form(self.seen), form(self.held_out)
        wrong, wrong_seen = self.errors(weights), self.errors(seen)
        accuracy = 1 - wrong.double().mean(1)
        seen_accuracy = 1 - float(wrong_seen.double().mean())
        distances = (
            nearest_distances(weights, seen).median() / leave_one_out_distances(seen).median()
        )
        several = len(weights) > 1
        return {
            "accuracy": float(accuracy.mean()),
            "of_trained": float(accuracy.mean()) / seen_accuracy,
            "worst": float(accuracy.min()) / seen_accuracy,
            "best": float(accuracy.max()) / seen_accuracy,
            "spread": dispersion(weights, seen) if several else None,
            "distance": float(distances),
            "z": memorisation_z(weights, seen, held_out) if several else None,
            "iou": float(max_error_iou(wrong, wrong_seen).mean()),
            "ms": 1e3 * seconds,
        }


def timed(draw: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The networks drawn, and the median CPU time for one of them."""
    seconds = []
    for _ in range(TIMED):
        began = process_time()
        found = draw()
        seconds.append((process_time() - began) / len(found))
    return found, median(seconds)


def job(data: str, hidden: int, seed: int, count: int, steps: int) -> dict[str, Any]:
    """All figures of one task, width and seed, by arm."""
    zoo = Zoo.trained(data, hidden, count, steps, seed)
    arms = Arms(zoo, (seed, data, hidden))
    rows = {
        name: zoo.figures(weights, form, seconds) for name, weights, form, seconds in arms.all()
    }
    flow, gain = arms.fitted.flow, arms.fitted.gain
    assert gain is not None
    return {
        "rows": rows,
        "fit": {
            "canonical": arms.fitted.canonical is not None,
            "lost_before": gain.before,
            "lost_after": gain.after,
            "flow_step": flow.step,
            "flow_loss": flow.loss,
            "flow_normal_loss": flow.normal_loss,
            "fit_s": arms.seconds,
        },
    }


Arm = tuple[str, Tensor, Callable[[Tensor], Tensor], float]


class Arms:
    """The networks of every row, with the form that they come in and the time of one.

    Args:
        zoo: What to learn from.
        names: Of the random streams.
    """

    def __init__(self, zoo: Zoo, names: tuple[str | int, ...]) -> None:
        self.zoo, self.names = zoo, names
        began = process_time()
        self.fitted = self._fit(zoo.seen, UnconditionalConfig(head="drawn"))
        self.seconds = process_time() - began
        self.seen = self.fitted.form(zoo.seen)

    def all(self) -> Iterator[Arm]:
        """The rows of the table, in order."""
        zoo, form = self.zoo, _kept(self.fitted.form)
        yield "trained", zoo.seen, _same, zoo.seconds
        yield "trained, held out", form(zoo.held_out), form, zoo.seconds
        for count in (1, 4, 16):
            yield self._generated(f"generated, {count}", self.fitted, count, form)
        few = UnconditionalConfig(head="drawn", canonical="never", codec=CodecConfig(common=FEW))
        few_fitted = self._fit(self.seen, few)
        yield self._generated(f"generated, 4, {FEW} components", few_fitted, 4, form)
        initialised = UnconditionalConfig(
            head="drawn",
            canonical="never",
            flow=FlowConfig(source="kaiming", dropout=1, batch=32, patience=1),
        )
        from_initial = self._fit(self.seen, initialised)
        for count in (4, 16):
            yield self._generated(f"generated, {count}, kaiming", from_initial, count, form)
        as_they_are = self._fit(zoo.seen, UnconditionalConfig(head="drawn", canonical="never"))
        yield self._generated("generated, 4, not canonical", as_they_are, 4, _same)
        yield self._generated("Gaussian in latents", self.fitted, 0, form)
        for name, draw in self._nulls().items():
            weights, seconds = timed(draw)
            yield name, weights, form, seconds

    def _fit(self, weights: Tensor, config: UnconditionalConfig) -> Unconditional:
        return fit_unconditional(
            weights, self.zoo.target, config, generator_for(*self.names, "fit")
        )

    def _generated(
        self, name: str, fitted: Unconditional, count: int, form: Callable[[Tensor], Tensor]
    ) -> Arm:
        def draw() -> Tensor:
            return fitted.sample(DRAWN, generator_for(*self.names, "sample"), count)

        weights, seconds = timed(draw)
        return name, weights, form, seconds

    def _nulls(self) -> dict[str, Callable[[], Tensor]]:
        seen, rng = self.seen, generator_for(*self.names, "nulls")
        generated = self.fitted.sample(DRAWN, generator_for(*self.names, "sample"))
        away = nearest_distances(generated, seen).float()[:, None]

        def two() -> tuple[Tensor, Tensor]:
            first = torch.randint(len(seen), (DRAWN,), generator=rng)
            other = torch.randint(1, len(seen), (DRAWN,), generator=rng)
            return seen[first], seen[(first + other) % len(seen)]

        def noisy() -> Tensor:
            noise = torch.randn(DRAWN, seen.shape[1], generator=rng)
            return two()[0] + away * noise / noise.norm(dim=1, keepdim=True)

        return {
            "mean network": lambda: seen.mean(0, keepdim=True),
            "mean of two": lambda: torch.stack(two()).mean(0),
            "random mix of two": lambda: torch.lerp(*two(), torch.rand(DRAWN, 1, generator=rng)),
            "trained + noise": noisy,
            "random init": lambda: torch.stack(
                [self.zoo.target.initialise(rng) for _ in range(DRAWN)]
            ),
        }


def _same(weights: Tensor) -> Tensor:
    return weights


def _kept(form: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, computed once for each matrix."""
    found: dict[int, Tensor] = {}

    def looked_up(weights: Tensor) -> Tensor:
        if id(weights) not in found:
            found[id(weights)] = form(weights)
        return found[id(weights)]

    return looked_up


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds and their 95% intervals, by arm; medians of times."""
    rows = {}
    for arm in seeds[0]["rows"]:
        by_seed = [one["rows"][arm] for one in seeds]
        means, errors = {}, {}
        for name in FIGURES:
            values = [row[name] for row in by_seed]
            if None in values:
                continue
            means[name] = median(values) if name == "ms" else fmean(values)
            errors[name] = float(half_width(torch.tensor(values, dtype=torch.float64)))
        rows[arm] = {"mean": means, "ci95": errors}
    return {"rows": rows, "fits": [one["fit"] for one in seeds]}


def show(title: str, found: dict[str, Any]) -> None:
    """Prints one table."""
    print(f"\n{title}")
    heads = (
        "accuracy %",
        "of trained %",
        "worst %",
        "best %",
        "spread",
        "distance",
        "Z",
        "IoU",
        "ms",
    )
    print(f"{'':<30}" + "".join(f"{head:>14}" for head in heads))
    for arm, row in found["rows"].items():
        print(f"{arm:<30}" + "".join(f"{_cell(row, name):>14}" for name in FIGURES))
    for fit in found["fits"]:
        print(
            f"canonical {'yes' if fit['canonical'] else 'no'}: of unseen networks the codec loses"
            f" {fit['lost_before']:.2f} without, {fit['lost_after']:.2f} with; flow best at step"
            f" {fit['flow_step']}, loss {fit['flow_loss']:.3f}, of a normal"
            f" {fit['flow_normal_loss']:.3f}; fitted in {fit['fit_s']:.1f} s"
        )


def _cell(row: dict[str, dict[str, float]], name: str) -> str:
    if name not in row["mean"]:
        return "-"
    value, error = row["mean"][name], row["ci95"][name]
    if name == "ms":
        return f"{value:.2f}"
    if name in ("accuracy", "of_trained", "worst", "best"):
        return f"{100 * value:.1f} ±{100 * error:.1f}"
    return f"{value:.1f} ±{error:.1f}" if name == "z" else f"{value:.2f} ±{error:.2f}"


def plot(tables: dict[str, dict[str, Any]], path: Any) -> None:
    """Draws accuracy against distance to the nearest network learned from."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(tables), 5), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, found) in zip(panels, tables.items(), strict=True):
        for index, (arm, row) in enumerate(found["rows"].items()):
            mean, marker = row["mean"], "o" if arm.startswith("generated") else "x"
            axes.scatter(
                mean["distance"],
                mean["of_trained"],
                marker=marker,
                color=f"C{index % 10}",
                label=arm,
            )
        axes.set_title(title)
        axes.set_xlabel("distance to the nearest network, relative")
    panels[0].set_ylabel("accuracy relative to trained networks")
    panels[-1].legend(fontsize="x-small")
    figure.savefig(path)
    print(f"plot in {path}")


def main() -> None:
    """Runs every task, width and seed."""
    chosen = options(__doc__ or "", plot=True)
    widths, count, steps = ((32,), 40, 100) if chosen.quick else ((32, 128), 100, 250)
    kinds = [(data, hidden) for data in chosen.data.split(",") for hidden in widths]
    jobs = [(*kind, seed, count, steps) for kind in kinds for seed in range(chosen.seeds)]
    found = side_by_side(job, jobs)
    tables = {
        f"{data}, {hidden} hidden units": summarise(
            found[index * chosen.seeds : (index + 1) * chosen.seeds]
        )
        for index, (data, hidden) in enumerate(kinds)
    }
    for title, table in tables.items():
        show(title, table)
    write_json(chosen.json, {"seeds": chosen.seeds, "tables": tables})
    if chosen.plot:
        plot(tables, chosen.plot)


if __name__ == "__main__":
    main()
