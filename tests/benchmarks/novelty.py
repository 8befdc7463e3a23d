"""Whole networks for one task that are both good and new: quality over distance.

`python -m tests.benchmarks.novelty [--quick] [--seeds N] [--json FILE] [--plot FILE]`

Tasks and networks are those of `tests.benchmarks.unconditional`: 80 perceptrons of one data set to
learn from, 20 held out, 100 drawn of each kind, none chosen or fine-tuned. Rows:

* ``generated``: the product's flow, output layers solved on synthetic inputs; ``flow, as drawn``
  without that. ``normal`` and ``mixture``: other draws in the same latents, which have a spread
  of 1.
* ``DeepWeightFlow``: the published training and sampler after so many steps, on the same canonical
  networks (narrow networks only; the state is 79 principal components, whatever the width).
* nulls: a record with noise, by distance; with its output layer solved; with noise only along those
  half of the inputs' directions that have the least energy (``unseen``); mixes of records, as
  whole or neuron by neuron; the mean network.

``of trained`` is the mean accuracy relative to the networks learned from, ``worst`` that of the
worst network. ``distance`` is the median distance to the nearest network learned from, relative to
the median of these to each other. Distance alone can be had for nothing (``unseen``): so ``felt``
is the same with the first layer's weights measured by what units receive, that is by the inputs'
second moment. ``IoU`` is the mean of the largest overlap of errors with any network learned from,
``alike`` with any other of the row. ``leads`` is the quality in points over records with noise that
lie just as far away, network by network, and ``leads felt`` with the felt distance. ``ms`` is CPU
time for one network. Intervals are Student's 95% intervals over seeds, so ``leads`` is paired by
seed. Some five minutes of CPU time a seed.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from f2l_fed.audit.diagnostics import leave_one_out_distances, max_error_iou, nearest_distances
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.summary import half_width
from tests.benchmarks.common import options, side_by_side, write_json
from tests.benchmarks.novelty_arms import Arms
from tests.benchmarks.unconditional import DRAWN, Zoo, examples

LENGTHS = (300, 1_000, 3_000, 10_000, 30_000)
"""Training steps of the published sampler, its own number last."""
NARROW = 32
SHARES = ("of_trained", "worst", "leads", "leads_felt")
FIGURES = ("of_trained", "worst", "distance", "felt", "iou", "alike", "leads", "leads_felt", "ms")
STYLES = {
    "DeepWeightFlow": ("C3", "s-", "DeepWeightFlow, by training steps"),
    "normal x": ("C0", ".-", "normal draws by spread, solved"),
    "generated": ("C0", "*", "generated"),
    "record + noise .89, solved": ("C1", "x", "record + noise, solved"),
    "record + noise .89, unseen": ("C5", "v", "record + noise where inputs have no energy"),
    "record + noise": ("C1", ".-", "record + noise"),
    "flow, as": ("C4", "o", "flow, as drawn"),
    "normal, as": ("C6", "o", "normal, as drawn"),
    "mixture, as": ("C8", "o", "mixture, as drawn"),
    "random mix": ("C7", "D", "random mix of two"),
    "neurons of two": ("C9", "P", "neurons of two"),
    "mean network, solved": ("C0", "^", "mean network, solved"),
    "mean network": ("C7", "^", "mean network"),
    "trained": ("C2", "o", "trained, held out"),
}
"""Colour, marker and name in the plot by the beginning of a row's name, the longer ones first."""


class Judge:
    """Takes the figures of drawn networks.

    Args:
        arms: What they learned from.
        images: (n, F) float32, inputs whose second moment tells what units receive.
        names: Of the random streams.
    """

    def __init__(self, arms: Arms, images: Tensor, names: tuple[str | int, ...]) -> None:
        values, axes = torch.linalg.eigh(images.T @ images / len(images))
        self.arms, self.names = arms, names
        self.root = axes * values.clamp(min=0).sqrt()
        self.felt = arms.felt(arms.seen, self.root)
        self.felt_apart = float(leave_one_out_distances(self.felt).median())
        self.wrong = arms.zoo.errors(arms.seen)
        self.accuracy = 1 - float(self.wrong.double().mean())

    def figures(self, weights: Tensor, seconds: float) -> dict[str, float | None]:
        """All figures of some networks in canonical form."""
        arms = self.arms
        wrong = arms.zoo.errors(weights)
        quality = (1 - wrong.double().mean(1)) / self.accuracy
        away = nearest_distances(weights, arms.seen)
        felt = nearest_distances(arms.felt(weights, self.root), self.felt)
        several = len(weights) == DRAWN
        return {
            "of_trained": float(quality.mean()),
            "worst": float(quality.min()),
            "distance": float(away.median()) / arms.apart,
            "felt": float(felt.median()) / self.felt_apart,
            "iou": float(max_error_iou(wrong, self.wrong).mean()),
            "alike": _alike(wrong) if len(weights) > 1 else None,
            "leads": float(quality.mean()) - self._noisy(away) if several else None,
            "leads_felt": float(quality.mean()) - self._noisy(felt, felt=True) if several else None,
            "ms": 1e3 * seconds,
        }

    def _noisy(self, away: Tensor, *, felt: bool = False) -> float:
        """Quality of records with noise that lie as far away."""
        arms = self.arms
        if felt:
            unit = arms.noisy(torch.ones(DRAWN), self._rng()) - arms.noisy(
                torch.zeros(DRAWN), self._rng()
            )
            away = away / arms.felt(unit, self.root).norm(dim=1)
        wrong = arms.zoo.errors(arms.noisy(away, self._rng()))
        return (1 - float(wrong.double().mean())) / self.accuracy

    def _rng(self) -> torch.Generator:
        return generator_for(*self.names, "as far away")


def _alike(wrong: Tensor) -> float:
    rest = [torch.cat([wrong[:i], wrong[i + 1 :]]) for i in range(len(wrong))]
    return fmean(float(max_error_iou(wrong[i : i + 1], rest[i])) for i in range(len(wrong)))


def job(
    data: str, hidden: int, seed: int, count: int, steps: int, lengths: tuple[int, ...]
) -> dict[str, Any]:
    """Figures of all rows for one task, width and seed."""
    names = (seed, data, hidden)
    images = examples(data, seed)[0][0].flatten(1)
    arms = Arms(Zoo.trained(data, hidden, count, steps, seed), lengths, images, names)
    judge = Judge(arms, images, names)
    rows = {name: judge.figures(weights, seconds) for name, weights, seconds in arms.all()}
    return {"trained": judge.accuracy, "fit_s": arms.seconds, "rows": rows}


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds and their 95% intervals, by row; medians of times."""
    rows: dict[str, Any] = {}
    for arm in seeds[0]["rows"]:
        rows[arm] = {"mean": {}, "ci95": {}}
        for name in FIGURES:
            values = [one["rows"][arm][name] for one in seeds]
            if None in values:
                continue
            rows[arm]["mean"][name] = median(values) if name == "ms" else fmean(values)
            error = half_width(torch.tensor(values, dtype=torch.float64))
            rows[arm]["ci95"][name] = float(error)
    return {"rows": rows, "trained": fmean(one["trained"] for one in seeds)}


def show(title: str, found: dict[str, Any]) -> None:
    """Prints one table."""
    print(f"\n{title}: trained {100 * found['trained']:.1f}%")
    print(f"{'':<28}" + "".join(f"{name.replace('_', ' '):>13}" for name in FIGURES))
    for arm, row in found["rows"].items():
        print(f"{arm:<28}" + "".join(f"{_cell(row, name):>13}" for name in FIGURES))


def _cell(row: dict[str, dict[str, float]], name: str) -> str:
    if name not in row["mean"]:
        return "-"
    value, error = row["mean"][name], row["ci95"][name]
    if name in SHARES:
        sign = "+" if name.startswith("leads") else ""
        return f"{100 * value:{sign}.1f} ±{100 * error:.1f}"
    return f"{value:.2f}" if name == "ms" else f"{value:.2f} ±{error:.2f}"


def plot(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws quality over distance, and over the distance that units feel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tables), 8.5), layout="constrained", facecolor="white")
    panels = figure.subplots(2, len(tables), squeeze=False, sharey="col")
    for column, (title, found) in enumerate(tables.items()):
        for axes, over in zip(panels[:, column], ("distance", "felt"), strict=True):
            _panel(axes, found["rows"], over)
        panels[0, column].set_title(title)
    panels[0, 0].set_xlabel("distance to the nearest network learned from, relative")
    panels[1, 0].set_xlabel("the same, as units feel it")
    for row in panels:
        row[0].set_ylabel("accuracy in % of the trained networks'")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path)
    print(f"plot in {path}")


def _panel(axes: Any, rows: dict[str, Any], over: str) -> None:
    axes.axhspan(98, 110, color="0.93", zorder=0)
    axes.axvline(0.85, color="0.7", linewidth=0.8, zorder=0)
    drawn: set[str] = set()
    for prefix, (colour, style, label) in STYLES.items():
        members = [name for name in rows if name.startswith(prefix) and name not in drawn]
        drawn.update(members)
        if members:
            x = [rows[name]["mean"][over] for name in members]
            y = [100 * rows[name]["mean"]["of_trained"] for name in members]
            size = 14 if style == "*" else 6
            axes.plot(x, y, style, color=colour, label=label, markersize=size)
    axes.set_ylim(86, 105)
    axes.grid(alpha=0.3)


def main() -> None:
    """Runs every task, width and seed."""
    chosen = options(__doc__ or "", plot=True)
    widths, count, steps = ((NARROW,), 40, 100) if chosen.quick else ((NARROW, 128), 100, 250)
    lengths = LENGTHS[:2] if chosen.quick else LENGTHS
    kinds = [(data, hidden) for hidden in widths for data in chosen.data.split(",")]
    jobs = [
        (*kind, seed, count, steps, lengths if kind[1] == NARROW else ())
        for kind in kinds
        for seed in range(chosen.seeds)
    ]
    found = side_by_side(job, jobs)
    tables = {
        f"{data}, {hidden} hidden units": summarise(
            found[index * chosen.seeds : (index + 1) * chosen.seeds]
        )
        for index, (data, hidden) in enumerate(kinds)
    }
    for title, table in tables.items():
        show(title, table)
    write_json(chosen.json, {"seeds": chosen.seeds, "tables": tables, "runs": found})
    if chosen.plot:
        plot(tables, chosen.plot)


if __name__ == "__main__":
    main()
