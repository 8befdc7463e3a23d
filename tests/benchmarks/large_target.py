"""A network of 270,000 weights through prior, codec, flow and back: time, memory, quality.

`python -m tests.benchmarks.large_target [--quick] [--seeds N] [--json OUT.json]`

First, generators are fitted to records of a ResNet-20, each count of records in a process of its
own whose peak memory is read from the system. The records are random, for the work does not
depend on what they say. ``peak`` is what the process held at most, less what it held before there
were records; ``per number`` divides it by the count of numbers in contexts and weights together.

Then a federation of sites trains ResNet-20s for real: few shots, three rounds, one episode.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from f2l_fed.evaluation.arms import measure, starts
from f2l_fed.evaluation.summary import summarise
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.serialization import load_generator, save_generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import build_target
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import memory_mib, options, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

STEPS = (0, 1, 5, 20)
ARMS = ("random", "global_mean", "nearest", "probe", "prior", "gaussian", "generated")
SETTINGS = (
    "target.name=resnet20",
    "probe.episodes=1",
    "probe.anchors=2",
    "first.steps=40",
    "first.batch=25",
)


def fit(records: int, path: Path) -> dict[str, float]:
    """Fits, draws, saves and loads a generator; seconds and bytes."""
    target = build_target("resnet20", (1, 28, 28), 5)
    symmetry, rng = OutputSymmetry.of(target, enabled=True), torch.Generator().manual_seed(0)
    before = memory_mib("VmRSS")
    contexts, weights = torch.randn(2, records, 1, target.layout.size, generator=rng)
    began = time.perf_counter()
    fitted = fit_generator(
        contexts,
        weights,
        target,
        symmetry,
        GeneratorConfig(),
        rng,
        anchor=torch.zeros(target.layout.size),
    )
    fit_seconds = time.perf_counter() - began
    peak = (memory_mib("VmHWM") - before) * 2**20
    generator = fitted.generator
    expected = generator.expect(contexts[:1, 0]).expand(16, -1)
    began = time.perf_counter()
    drawn = generator.sample(expected, rng)
    sample_seconds = time.perf_counter() - began
    save_generator(generator, path)
    again = load_generator(path).carry(expected, torch.zeros(16, generator.codec.shape.size))
    assert drawn.isfinite().all()
    assert again.isfinite().all()
    return {
        "records": records,
        "weights": target.layout.size,
        "fit_seconds": fit_seconds,
        "ms_per_network": 1000 * sample_seconds / len(drawn),
        "peak_bytes": peak,
        "bytes_per_number": peak / (contexts.numel() + weights.numel()),
        "file_bytes": path.stat().st_size,
    }


def sizes(counts: tuple[int, ...], folder: Path) -> list[dict[str, float]]:
    """`fit` for every count, each in a fresh process."""
    context, found = multiprocessing.get_context("spawn"), []
    for count in counts:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(fit, count, folder / "generator.safetensors").result())
    return found


def federation(seed: int, sites: int, held_out: int, rounds: int, data: str) -> dict[str, Any]:
    """Curves of every start at the held-out sites, by kind."""
    with laid_out(seed, sites, held_out, data, SETTINGS) as (folder, divided):
        began = time.perf_counter()
        run_inline(folder, rounds)
        seconds, config = time.perf_counter() - began, folder.config
        release = promoted(folder)
        found: dict[str, list[dict[str, list[float]]]] = {}
        for kind, some in held_out_sites(divided).items():
            found[kind] = []
            for site in some or ():
                every = starts(release, site)
                arms = {arm: every[arm] for arm in ARMS}
                found[kind].append(
                    measure(folder.target, arms, site, config.local, config.lineage, STEPS)
                )
    return {
        "seconds": seconds,
        "figures": dict(folder.releases.measured().figures),
        "curves": found,
    }


def main() -> None:
    """Both parts."""
    chosen = options(__doc__ or "")
    counts = (25, 50) if chosen.quick else (50, 100, 200, 400)
    shape = (8, 2, 2) if chosen.quick else (16, 6, 3)
    with tempfile.TemporaryDirectory() as folder:
        table = sizes(counts, Path(folder))
    print(f"{'records':>8}{'fit':>9}{'one network':>13}{'peak':>10}{'per number':>13}{'file':>9}")
    for row in table:
        print(
            f"{row['records']:>8}{row['fit_seconds']:>7.1f} s{row['ms_per_network']:>10.1f} ms"
            f"{row['peak_bytes'] / 2**20:>6.0f} MiB{row['bytes_per_number']:>7.1f} bytes"
            f"{row['file_bytes'] / 2**20:>5.0f} MiB"
        )
    found = side_by_side(federation, [(seed, *shape, chosen.data) for seed in range(chosen.seeds)])
    summaries = {}
    for kind in found[0]["curves"]:
        curves = [curve for one in found for curve in one["curves"][kind]]
        summaries[kind] = summarise(curves, STEPS)
        print(f"\n{kind} classes, {len(curves)} held-out sites: accuracy after {STEPS} steps")
        for arm, part in summaries[kind]["arms"].items():
            cells = zip(part["accuracy"], part["ci95"], strict=True)
            print(f"{arm:<12}" + "".join(f"{value:>8.3f} ±{c:.3f}" for value, c in cells))
    seconds = [one["seconds"] for one in found]
    print("\nseconds for all rounds:", ", ".join(f"{value:.0f}" for value in seconds))
    runs = {"arms": summaries, "seconds": seconds, "figures": [one["figures"] for one in found]}
    write_json(chosen.json, {"seeds": chosen.seeds, "sizes": table, "federation": runs})


if __name__ == "__main__":
    main()
