"""Speed, size and memory of the weight zoo, against alternatives without it.

    python -m tests.benchmarks.zoo [--quick] --json zoo.json

Each figure is a ratio within one run, a median over repetitions that take turns, so that the disk
and the neighbours are the same for both sides. The others: a plain ``numpy.memmap`` of the same
numbers; the same bytes written to a file and fsynced; one safetensors file per model, fsynced, with
a row in SQLite; Lance (package ``pylance``), left out with a line where it isn't installed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from f2l_fed.zoo import NewRecord, Reader, Zoo

PARAMETERS, CONTEXT = 2464, 64
BATCH = 100
try:
    import lance
    import pyarrow as pa
except ImportError:
    lance = None


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and size of the weight zoo.")
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--folder", type=Path, help="measure in this folder (default: temporary)")
    parser.add_argument(
        "--parts",
        default="append,sequential,shuffled,growth,memory",
        help="parts to measure; shuffled needs sequential",
    )
    options = parser.parse_args()
    if lance is None:
        print("Lance is left out: the package pylance is not installed.")
    quick = options.quick
    small, large = (1_000, 5_000) if quick else (1_000, 100_000)
    repetitions, rows = (3, 5_000) if quick else (5, 20_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "append": lambda: append(folder / "append", repetitions),
            "sequential": lambda: sequential(folder / "read", rows, repetitions),
            "shuffled": lambda: shuffled(folder / "read", repetitions),
            "growth": lambda: growth(folder / "growth", small, large),
            "memory": lambda: memory(folder / "memory", small, large // 5),
        }
        figures = {}
        for part, measure in parts.items():
            if part in options.parts.split(","):
                figures[part] = measure()
                _print(part, figures[part])
    if options.json:
        machine = {"cpus": os.cpu_count(), "platform": platform.platform()}
        found = {"machine": machine, "quick": quick, **figures}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def append(folder: Path, repetitions: int) -> dict[str, Any]:
    """Seconds for 1,000 records of 2,464 parameters in ten batches."""
    ways: dict[str, Callable[[Path, list[list[NewRecord]]], None]] = {
        "zoo": _append_zoo,
        "file": _append_file,
        "models": _append_models,
    }
    if lance is not None:
        ways["lance"] = _append_lance
    batches = [sample_records(BATCH, PARAMETERS, first=BATCH * number) for number in range(10)]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            with _fresh(folder):
                create_zoo(folder / "zoo", PARAMETERS)
                os.sync()
                started = time.perf_counter()
                way(folder, batches)
                seconds[name].append(time.perf_counter() - started)
    return _compared(seconds, base="file")


def sequential(folder: Path, count: int, repetitions: int) -> dict[str, Any]:
    """Seconds to sum all weights of a zoo batch by batch, in the order of the log."""
    zoo = create_zoo(folder / "zoo", PARAMETERS)
    flat = np.memmap(folder / "flat", np.float32, "w+", shape=(count, PARAMETERS))
    tables = []
    for first in range(0, count, 5_000):
        records = sample_records(min(5_000, count - first), PARAMETERS, first=first)
        zoo.append(records)
        flat[first : first + len(records)] = [record.weights for record in records]
        tables.append(np.stack([record.weights for record in records]))
    flat.flush()
    if lance is not None:
        for table in tables:
            lance.write_dataset(_table(table), str(folder / "lance"), mode="append")
    _write_models(folder / "models", zoo)
    expected = float(sum(float(part.sum(dtype=np.float64)) for part in tables))
    del flat, tables

    mapped = _mapped(folder / "flat")
    snapshot = Zoo.open(folder / "zoo").snapshot()

    def by_memmap(mapped: Any = mapped) -> Iterator[Any]:
        return (mapped[first : first + BATCH] for first in range(0, count, BATCH))

    def by_zoo(reader: Reader) -> Iterator[Any]:
        return (batch.weights for batch in reader.epoch())

    again = Reader(snapshot, batch_size=BATCH)
    for batch in again.epoch():
        batch.weights.sum()
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "memmap": by_memmap,
        "memmap, opened": lambda: by_memmap(_mapped(folder / "flat")),
        "zoo, opened": lambda: by_zoo(
            Reader(Zoo.open(folder / "zoo").snapshot(), batch_size=BATCH)
        ),
        "zoo, first epoch": lambda: by_zoo(readers.pop()),
        "zoo, next epochs": lambda: by_zoo(again),
    }
    if lance is not None:
        dataset = lance.dataset(str(folder / "lance"))
        ways["lance"] = lambda: map(_rows, dataset.to_batches(batch_size=BATCH))
    ways["models"] = lambda: _read_models(folder / "models")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        readers = [Reader(snapshot, batch_size=BATCH)]
        for name, way in ways.items():
            started = time.perf_counter()
            total = sum(float(part.sum()) for part in way())
            seconds[name].append(time.perf_counter() - started)
            assert abs(total - expected) < 1e-3 * count, name
    return {"bytes": 4 * count * PARAMETERS, **_compared(seconds, base="memmap")}


def shuffled(folder: Path, repetitions: int) -> dict[str, Any]:
    """Seconds for one epoch in random order over what `sequential` has written."""
    flat = _mapped(folder / "flat")
    count = len(flat)

    def batches(seed: int) -> Iterator[Any]:
        order = np.random.default_rng(seed).permutation(count)
        return (np.sort(order[first : first + BATCH]) for first in range(0, count, BATCH))

    def by_zoo(seed: int) -> Iterator[Any]:
        found = Reader(Zoo.open(folder / "zoo").snapshot(), batch_size=BATCH, seed=seed)
        yield from (batch.weights for batch in found.epoch())

    def by_lance(seed: int) -> Iterator[Any]:
        found = lance.dataset(str(folder / "lance"))
        yield from (_rows(found.take(rows)) for rows in batches(seed))

    ways: dict[str, Callable[[int], Iterator[Any]]] = {
        "memmap": lambda seed: (flat[rows] for rows in batches(seed)),
        "zoo": by_zoo,
    }
    if lance is not None:
        ways["lance"] = by_lance
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(repetitions):
        for name, way in ways.items():
            started = time.perf_counter()
            sum(float(part.sum()) for part in way(seed))
            seconds[name].append(time.perf_counter() - started)
    return _compared(seconds, base="memmap")


def growth(folder: Path, small: int, large: int) -> dict[str, Any]:
    """Milliseconds of a commit, and seconds to open, as a zoo of tiny records grows."""
    zoo = create_zoo(folder / "zoo", 16)
    seconds: list[float] = []
    for first in range(0, large, BATCH):
        records = sample_records(BATCH, 16, first=first)
        started = time.perf_counter()
        zoo.append(records)
        seconds.append(time.perf_counter() - started)
    early, late = seconds[: small // BATCH], seconds[-small // BATCH :]
    ones = []
    for number in range(50):
        record = sample_records(1, 16, first=large + number)
        started = time.perf_counter()
        zoo.append(record)
        ones.append(time.perf_counter() - started)

    def opened() -> float:
        started = time.perf_counter()
        found = Zoo.open(folder / "zoo")
        assert found.stats().records == large + len(ones)
        found.snapshot()
        return time.perf_counter() - started

    opened()
    with_index = statistics.median(opened() for _ in range(3))
    (folder / "zoo" / "index.sqlite").unlink()
    without_index = opened()
    return {
        "records": [small, large],
        "commit_ms": [1e3 * statistics.median(part) for part in (early, late)],
        "commit_of_one_ms": 1e3 * statistics.median(ones),
        "open_with_index_s": with_index,
        "open_without_index_s": without_index,
    }


def memory(folder: Path, small: int, large: int) -> dict[str, Any]:
    """Anonymous memory of a process that reads a whole zoo in random order, in MiB."""
    found = []
    for count in (small, large):
        zoo = create_zoo(folder / str(count), PARAMETERS)
        for first in range(0, count, 1_000):
            zoo.append(sample_records(1_000, PARAMETERS, first=first))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(_memory_of_a_reader, (folder / str(count),)))
        shutil.rmtree(folder / str(count))
    return {
        "records": [small, large],
        "zoo_mib": [4 * count * PARAMETERS / 2**20 for count in (small, large)],
        "reader_mib": found,
    }


def _memory_of_a_reader(path: Path) -> float:
    most, before = 0, _anonymous_kib()
    reader = Reader(Zoo.open(path).snapshot(), batch_size=BATCH, seed=0, window_bytes=8 << 20)
    for batch in reader.epoch():
        batch.weights.sum()
        most = max(most, _anonymous_kib())
    return (most - before) / 1024


def _anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("this benchmark needs Linux")


def _append_zoo(folder: Path, batches: Sequence[list[NewRecord]]) -> None:
    zoo = Zoo.open(folder / "zoo")
    for batch in batches:
        zoo.append(batch)


def _append_file(folder: Path, batches: Sequence[list[NewRecord]]) -> None:
    for number, batch in enumerate(batches):
        with (folder / f"{number}.bin").open("wb") as file:
            for record in batch:
                file.write(record.weights.data)
                file.write(record.context.data)
            file.flush()
            os.fsync(file.fileno())


def _append_models(folder: Path, batches: Sequence[list[NewRecord]]) -> None:
    with closing(sqlite3.connect(folder / "models.sqlite")) as db:
        db.execute("CREATE TABLE models (key TEXT PRIMARY KEY, site TEXT, round INTEGER)")
        for batch in batches:
            with db:
                for record in batch:
                    path = folder / f"{record.key.replace('/', '-')}.safetensors"
                    save_file({"w": record.weights, "c": record.context}, path)
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                    db.execute(
                        "INSERT INTO models VALUES (?, ?, ?)",
                        (record.key, record.site, record.round),
                    )


def _append_lance(folder: Path, batches: Sequence[list[NewRecord]]) -> None:
    for batch in batches:
        rows = np.stack([record.weights for record in batch])
        keys = pa.array([record.key for record in batch])
        table = _table(rows).append_column("key", keys)
        lance.write_dataset(table, str(folder / "lance"), mode="append")


def _write_models(folder: Path, zoo: Zoo) -> None:
    folder.mkdir()
    reader = Reader(zoo.snapshot(), batch_size=BATCH)
    for batch in reader.epoch():
        for record, row in zip(batch.records, batch.weights, strict=True):
            path = folder / record.key.replace("/", "-")
            save_file({"w": np.ascontiguousarray(row)}, path)


def _read_models(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.iterdir()):
        with safe_open(path, framework="numpy") as file:
            yield file.get_tensor("w")


def _mapped(path: Path) -> Any:
    return np.memmap(path, np.float32, "r").reshape(-1, PARAMETERS)


def _table(rows: np.ndarray[Any, Any]) -> Any:
    flat = pa.array(rows.ravel())
    return pa.table({"w": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})


def _rows(batch: Any) -> Any:
    column = batch.column("w")
    parts = column.chunks if hasattr(column, "chunks") else [column]
    return np.concatenate([part.flatten().to_numpy() for part in parts])


def sample_records(count: int, parameters: int, first: int) -> list[NewRecord]:
    """Records of one site with random weights."""
    stream = np.random.default_rng(first)
    rows = stream.standard_normal((count, parameters), dtype=np.float32)
    context = np.zeros(CONTEXT, np.float32)
    return [
        NewRecord(
            key=f"{first + number}/site/0",
            site="site",
            round=first + number,
            parent="00001",
            weights=rows[number],
            context=context,
            metrics={"accuracy_before": 0.5, "accuracy_after": 0.75},
        )
        for number in range(count)
    ]


def create_zoo(path: Path, parameters: int) -> Zoo:
    """An empty zoo of networks with so many parameters."""
    layout = {"tensors": [{"name": "w", "shape": [parameters], "dtype": "float32"}]}
    return Zoo.create(
        path, lineage="benchmark", layout_digest="0" * 64, layout=layout, context_dim=CONTEXT
    )


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _compared(seconds: dict[str, list[float]], base: str) -> dict[str, Any]:
    """Medians, and medians of the ratios to one of the ways within each repetition."""
    return {
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "times_base": {
            name: statistics.median(t / b for t, b in zip(times, seconds[base], strict=True))
            for name, times in seconds.items()
        },
        "base": base,
    }


def _print(part: str, figures: dict[str, Any]) -> None:
    if "base" in figures:
        print(f"{part}, as a multiple of the time of {figures['base']}")
        for name, times in figures["times_base"].items():
            print(f"  {name:<16} {times:8.2f}   {1e3 * figures['seconds'][name]:10.1f} ms")
        return
    print(part)
    for name, value in figures.items():
        shown = value if isinstance(value, list) else [value]
        print(f"  {name:<24} {'   '.join(f'{number:.4g}' for number in shown)}", flush=True)


if __name__ == "__main__":
    main()
