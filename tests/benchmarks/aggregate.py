"""Time and memory of every aggregator against Flower's strategies.

`python -m tests.benchmarks.aggregate [--quick] [--seeds N] [--json OUT.json]`

32 updates of 2 million parameters (in three arrays, the largest with 80% of them) are in memory
as whoever reduces them is given them: Flower's strategies get reply messages, ours float32 rows
as they lie in a shard. ``flower`` is a strategy's `aggregate_train`, ``numpy`` its arithmetic
alone, on the plain arrays and without reading messages, ``ours`` init, accumulate one by one and
finalise. Each is run in a fresh process with one thread; a seed is one such process for each, in
turn. Memory is the peak above what the process had with all updates in memory, bytes that the
result takes included. Times are CPU times, so that other work on the machine counts for little;
the ratio is the median over the seeds of ours divided by the other within the same turn.

Multi-Krum keeps n - f - 2 updates with f = 6, the trimmed mean drops 6 at either end (Flower's
beta is 0.2, which is the same 6 of 32).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum
from flwr.serverapp.strategy.multikrum import compute_distances

from f2l_fed.aggregate import AGGREGATORS
from f2l_fed.core.random_streams import seed_for
from tests.benchmarks.common import memory_mib, options, write_json
from tests.support.flower_strategies import flower_aggregate, replies

BYZANTINE = 6
SHARES = (0.8, 0.15)
STRATEGIES: dict[str, Callable[[int], FedAvg]] = {
    "mean": lambda _: FedAvg(),
    "median": lambda _: FedMedian(),
    "trimmed_mean": lambda _: FedTrimmedAvg(beta=0.2),
    "multi_krum": lambda n: MultiKrum(
        num_malicious_nodes=BYZANTINE, num_nodes_to_select=n - BYZANTINE - 2
    ),
}
SIDES = ("ours", "flower", "numpy")


def updates(count: int, size: int, seed: int) -> list[np.ndarray]:
    """Float32 rows around a common point, as networks of one lineage are."""
    draws = np.random.default_rng(seed_for("aggregate", seed))
    common = draws.standard_normal(size, dtype=np.float32) / 10
    # Shifts of one noise: drawing all of it would take longer than everything that is measured.
    noise = draws.standard_normal(size + 7919 * count, dtype=np.float32) / 50
    return [common + noise[7919 * i : 7919 * i + size] for i in range(count)]


def measured(side: str, rule: str, count: int, size: int, seed: int) -> dict[str, float]:
    """Seconds and peak memory of one reduction; its first numbers, to see that all agree."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    rows = updates(count, size, seed)
    cuts = [int(size * SHARES[0]), int(size * sum(SHARES))]
    job = {"ours": _ours, "flower": _flower, "numpy": _numpy}[side](rule, rows, cuts)
    if side == "flower":
        rows.clear()
    before = memory_mib("VmRSS")
    # Resets the peak to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    found = job()
    seconds = time.process_time() - start
    peak = memory_mib("VmHWM") - before
    return {"seconds": seconds, "peak_mib": peak, "sum": float(found.astype(np.float64).sum())}


def _ours(rule: str, rows: list[np.ndarray], cuts: list[int]) -> Callable[[], np.ndarray]:
    del cuts
    tensors = [torch.from_numpy(row)[None] for row in rows]
    aggregator = AGGREGATORS[rule](0 if rule == "mean" else BYZANTINE)

    def job() -> np.ndarray:
        state = aggregator.init(tensors[0].shape[1])
        for tensor in tensors:
            state = aggregator.accumulate(state, tensor, torch.ones(1))
        return aggregator.finalise(state).numpy()

    return job


def _flower(rule: str, rows: list[np.ndarray], cuts: list[int]) -> Callable[[], np.ndarray]:
    strategy, messages = STRATEGIES[rule](len(rows)), []
    while rows:
        messages += replies(rows.pop()[None], [1.0], cuts=cuts)
    return lambda: flower_aggregate(strategy, messages)


def _numpy(rule: str, rows: list[np.ndarray], cuts: list[int]) -> Callable[[], np.ndarray]:
    arrays = [np.split(row, cuts) for row in rows]

    def layers(reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [reduce(np.stack(layer)) for layer in zip(*arrays, strict=True)], dtype=np.float32
        )

    def mean(some: list[np.ndarray]) -> np.ndarray:
        total = some[0] * (1 / len(some))
        for row in some[1:]:
            total += row * (1 / len(some))
        return total

    def trimmed(layer: np.ndarray) -> np.ndarray:
        kept = slice(BYZANTINE, len(rows) - BYZANTINE)
        return np.partition(layer, (kept.start, kept.stop - 1), axis=0)[kept].mean(axis=0)

    def krum() -> np.ndarray:
        near = len(rows) - BYZANTINE - 2
        distances = compute_distances([_Arrays(row) for row in rows])  # type: ignore[misc]
        scores = np.sort(distances, axis=1)[:, 1 : near + 1].sum(axis=1)
        return mean([rows[i] for i in np.argsort(scores)[:near]])

    jobs: dict[str, Callable[[], np.ndarray]] = {
        "mean": lambda: mean(rows),
        "median": lambda: layers(lambda layer: np.median(layer, axis=0)),
        "trimmed_mean": lambda: layers(trimmed),
        "multi_krum": krum,
    }
    return jobs[rule]


class _Arrays:
    """The part of a record that Flower's distances need, without any message around it."""

    def __init__(self, row: np.ndarray) -> None:
        self._row = row

    def to_numpy_ndarrays(self) -> list[np.ndarray]:
        return [self._row]


def fresh(*job: Any) -> dict[str, float]:
    """`measured` in a process of its own, started from nothing."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, *job).result()


def main() -> None:
    """Prints the table."""
    chosen = options(__doc__ or "")
    # Before the processes start: numpy's and torch's libraries read it once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    count, size = (16, 200_000) if chosen.quick else (32, 2_000_000)
    seeds = 1 if chosen.quick else chosen.seeds
    pairs = [(r, s) for r in AGGREGATORS for s in SIDES if s == "ours" or r in STRATEGIES]
    runs = [
        {pair: fresh(pair[1], pair[0], count, size, seed) for pair in pairs}
        for seed in range(seeds)
    ]
    figures: dict[str, Any] = {}
    print(f"{count} updates of {size:,} parameters, {4 * count * size / 2**20:.0f} MiB")
    print(f"{'':<18}{'seconds':>9}{'peak MiB':>10}{'ours / it':>11}{'memory':>9}")
    for rule, side in pairs:
        times = [run[rule, side]["seconds"] for run in runs]
        peaks = [run[rule, side]["peak_mib"] for run in runs]
        ours = [run[rule, "ours"] for run in runs]
        ratio = median(mine["seconds"] / it for mine, it in zip(ours, times, strict=True))
        memory = median(mine["peak_mib"] / it for mine, it in zip(ours, peaks, strict=True))
        off = max(
            abs(run[rule, side]["sum"] - run[rule, "ours"]["sum"]) / size**0.5 for run in runs
        )
        figures.setdefault(rule, {})[side] = {
            "seconds": {"median": median(times), "all": times},
            "peak_mib": {"median": median(peaks), "all": peaks},
            "ours_time_over_this": ratio,
            "ours_memory_over_this": memory,
            "difference_of_sums": off,
        }
        shown = f"{ratio:>11.2f}{memory:>9.2f}" if side != "ours" else ""
        print(f"{rule if side == 'ours' else '':<18}", end="")
        print(f"{median(times):>9.2f}{median(peaks):>10.0f}{shown}  {side}")
    write_json(chosen.json, {"updates": count, "parameters": size, "rules": figures})


if __name__ == "__main__":
    main()
