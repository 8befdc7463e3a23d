"""Compaction of small shards: a zoo of one record a file, before and after ``compact``.

    python -m tests.benchmarks.merging [--quick] --json merging.json

Medians of three runs each; the files were read before, so that they are in memory both times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from f2l_fed.zoo import Reader, Zoo
from tests.benchmarks.zoo import BATCH, PARAMETERS, create_zoo, sample_records


def main() -> None:
    parser = argparse.ArgumentParser(description="Small and large shards of the weight zoo.")
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--folder", type=Path, help="measure in this folder (default: temporary)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = merging(Path(folder), 1_000 if options.quick else 5_000)
    for name, value in figures.items():
        shown = value if isinstance(value, list) else [value]
        print(f"{name:<20} {'   '.join(f'{number:.4g}' for number in shown)}")
    if options.json:
        machine = {"cpus": os.cpu_count(), "platform": platform.platform()}
        found = {"machine": machine, "quick": options.quick, **figures}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def merging(folder: Path, count: int) -> dict[str, Any]:
    """Seconds to open and read a zoo of shards of one record each, before and after a merge."""
    zoo = create_zoo(folder / "zoo", PARAMETERS)
    for number in range(count):
        zoo.append(sample_records(1, PARAMETERS, first=number))

    def seconds(seed: int | None) -> tuple[float, float]:
        started = time.perf_counter()
        snapshot = Zoo.open(folder / "zoo").snapshot()
        opened = time.perf_counter()
        for batch in Reader(snapshot, batch_size=BATCH, seed=seed).epoch():
            batch.weights.sum()
        return opened - started, time.perf_counter() - opened

    def figures() -> dict[str, float]:
        in_order, shuffled = ([seconds(seed) for _ in range(3)] for seed in (None, 0))
        return {
            "files": len(list((folder / "zoo" / "shards").iterdir())),
            "open_s": statistics.median(opened for opened, _ in in_order),
            "read_s": statistics.median(read for _, read in in_order),
            "read_shuffled_s": statistics.median(read for _, read in shuffled),
        }

    before = figures()
    started = time.perf_counter()
    zoo.compact()
    took = time.perf_counter() - started
    after = figures()
    both = {name: [before[name], after[name]] for name in before}
    return {"records": count, "compact_s": took, **both}


if __name__ == "__main__":
    main()
