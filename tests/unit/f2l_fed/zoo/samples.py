"""Small zoos, and the writers that the process tests start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from f2l_fed.zoo import NewRecord, Zoo

LAYOUT = {
    "tensors": [
        {"name": "body.weight", "shape": [2, 3], "dtype": "float32"},
        {"name": "body.bias", "shape": [2], "dtype": "float32"},
        {"name": "scale", "shape": [], "dtype": "float32"},
    ]
}
WEIGHTS, CONTEXT = 9, 4


def new_zoo(path: Path | str) -> Zoo:
    return Zoo.create(
        path, lineage="tiny", layout_digest="ab" * 32, layout=LAYOUT, context_dim=CONTEXT
    )


def new_record(key: str, *, weights: np.ndarray | None = None, **changes: object) -> NewRecord:
    """A record whose numbers follow from its key ``round/site/candidate``."""
    round_, site, _ = key.split("/")
    stream = np.random.default_rng(list(key.encode()))
    fields: dict[str, object] = {
        "key": key,
        "site": site,
        "round": int(round_),
        "weights": stream.standard_normal(WEIGHTS, dtype=np.float32)
        if weights is None
        else weights,
        "context": stream.standard_normal(CONTEXT, dtype=np.float32),
        "metrics": {"accuracy": 0.5},
        **changes,
    }
    return NewRecord(**fields)  # type: ignore[arg-type]


def new_records(*keys: str) -> list[NewRecord]:
    return [new_record(key) for key in keys]


def keys_of(records: Sequence[object]) -> list[str]:
    return [record.key for record in records]  # type: ignore[attr-defined]


def shard_files(path: Path) -> list[Path]:
    return sorted((path / "shards").iterdir())


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def write_many(path: Path | str, site: str, commits: int) -> None:
    """Appends one record at a time; runs in a process of its own."""
    zoo = Zoo.open(path)
    for number in range(commits):
        zoo.append([new_record(f"{number}/{site}/0")])
