"""Parts shared by all benchmarks: options, facts about the machine, parallel seeds, output."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.registry import SCENARIOS
from f2l_fed.evaluation.summary import half_width

T = TypeVar("T")

SEPARATE = ("split.validation_fraction=0", "split.minimum_examples=1")
"""The settings of all published figures: sites learn from all of their examples, however few, and
measure on further ones. A deployment's sites, and so those of `f2l-admin simulate`, keep a fifth
of theirs aside."""

SEPARATE_SPLIT = SplitConfig(validation_fraction=0, minimum_examples=1)
"""The same as a configuration."""


def options(
    description: str,
    seeds: int = 3,
    *,
    plot: bool = False,
    kept: bool = False,
    scenario: bool = False,
    attacks: Sequence[str] = (),
) -> argparse.Namespace:
    """--quick, --seeds, --json, --data and perhaps --plot, --kept, --scenario and --attack."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--data", default="mnist5k,fashion-mnist", help="data sets, by commas")
    if kept:
        parser.add_argument("--kept", type=Path, help="keep and reuse results in this folder")
    if scenario:
        names = tuple(SCENARIOS)
        parser.add_argument("--scenario", choices=names, default="few-shot")
    if attacks:
        text = "an attack; may be repeated (default: all)"
        parser.add_argument("--attack", choices=attacks, action="append", help=text)
    if plot:
        parser.add_argument("--plot", type=Path, help="draw the figures to this file, .svg or .png")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Facts about the machine and the versions of Python and torch."""
    return {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def memory_mib(field: str) -> float:
    """Memory of this process in MiB by Linux's name: ``VmRSS`` now, ``VmHWM`` at its peak.

    `resource.getrusage` is no substitute in a fresh process: it counts its parent's peak too.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def side_by_side(job: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
    """Runs jobs in one process per CPU, each with one torch thread; results in order of jobs."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        return [future.result() for future in [pool.submit(job, *args) for args in arguments]]


def paired(ours: Tensor, base: Tensor) -> dict[str, list[float]]:
    """Mean accuracy, mean difference from another arm at the same sites, and its half-width.

    Args:
        ours: (sites, steps) float64.
        base: (sites, steps) float64.
    """
    difference = ours - base
    return {
        "accuracy": ours.mean(0).tolist(),
        "difference": difference.mean(0).tolist(),
        "ci95": half_width(difference).tolist(),
    }


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Writes the figures with the machine they were measured on."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
        print(f"figures in {path}")
