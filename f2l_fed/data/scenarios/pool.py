"""The pool of all examples of a federation, and the deck that deals those of one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.dataset import Dataset, first_occurrences
from f2l_fed.data.readers.matching import match_columns, numbered_columns
from f2l_fed.data.readers.raw_examples import Column, RawExamples
from f2l_fed.errors import DataError

__all__ = ["Deck", "Pool", "merge_datasets"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Examples of several datasets, the classes of each counted on from those before it.

    Args:
        names: Names of the datasets.
        first_class: Pool class of each dataset's class 0.
        x: (n, ...) examples as in `Dataset`, no two rows the same.
        y: (n,) int64, in [0, classes).
        classes: Number of classes of all datasets.
        groups: (n,) int64, natural sites, or None where a dataset has none.
        group_names: Names of these by their number; empty where they have none.
        together: (n,) int64, examples of one number are never on both sides of a split within a
            site; or None.
        columns: The columns of vectors; empty for images.
    """

    names: tuple[str, ...]
    first_class: tuple[int, ...]
    x: AnyArray
    y: IntArray
    classes: int
    groups: IntArray | None
    group_names: tuple[str, ...] = ()
    together: IntArray | None = None
    columns: tuple[Column, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.x.shape[1:]

    def require_images(self, why: str) -> None:
        """Raises DataError, which says why images are needed, unless the examples are images."""
        if len(self.shape) != 3:
            raise DataError(
                why,
                where=", ".join(self.names),
                expected="(n, H, W) or (n, H, W, 3)",
                got=f"vectors of {self.shape[0]} features",
                remedy="Choose another scenario for vectors.",
            )

    def rows(self, label: int) -> IntArray:
        """Finds the examples of one pool class, in order."""
        return np.flatnonzero(self.y == label)

    def describe(self, label: int) -> str:
        """Names a pool class for a person."""
        dataset = int(np.searchsorted(self.first_class, label, side="right")) - 1
        return f"{self.names[dataset]}, class {label - self.first_class[dataset]}"


def merge_datasets(datasets: Sequence[Dataset]) -> Pool:
    """Puts datasets together and drops exact duplicates.

    Args:
        datasets: At least one, all with examples of the same shape.

    Raises:
        DataError: If there is none, one comes twice, or the shapes differ.
    """
    if not datasets:
        raise DataError("no dataset is given", remedy="Name at least one dataset.")
    names = tuple(data.name for data in datasets)
    if len(set(names)) < len(names):
        raise DataError(
            "a dataset is named twice",
            got=", ".join(names),
            remedy="Name each one once, and give different files different names.",
        )
    shapes = [data.x.shape[1:] for data in datasets]
    if len(set(shapes)) > 1:
        raise DataError(
            "the datasets have examples of different shapes",
            got=", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True)),
            remedy="Resize them to one shape, or run them one at a time.",
        )
    first_class = np.cumsum([0, *(data.classes for data in datasets)])
    raws = [_raw(data) for data in datasets]
    if raws[0].columns and len(raws) > 1:
        raws = list(match_columns(raws))
    x = np.concatenate([raw.inputs for raw in raws])
    y = np.concatenate([data.y + first for data, first in zip(datasets, first_class, strict=False)])
    keep = first_occurrences(x)
    groups = _groups(datasets)
    together = datasets[0].together if len(datasets) == 1 else None
    return Pool(
        names=names,
        first_class=tuple(int(first) for first in first_class[:-1]),
        x=x if len(keep) == len(x) else x[keep],
        y=y[keep],
        classes=int(first_class[-1]),
        groups=None if groups is None else groups[keep],
        group_names=datasets[0].group_names if len(datasets) == 1 else (),
        together=None if together is None else together[keep],
        columns=raws[0].columns,
    )


def _raw(data: Dataset) -> RawExamples:
    columns = data.columns or (numbered_columns(data.x.shape[1]) if data.x.ndim == 2 else ())
    return RawExamples(where=data.name, inputs=data.x, columns=columns, labels=None)


def _groups(datasets: Sequence[Dataset]) -> IntArray | None:
    parts: list[IntArray] = []
    first = 0
    for data in datasets:
        if data.groups is None:
            return None
        parts.append(data.groups + first)
        first += int(data.groups.max()) + 1
    return np.concatenate(parts)


class Deck:
    """Rows that are dealt in random order, each once before any comes again.

    Args:
        rows: (n,) int64, what to deal.
        rng: Source of chance; the deck keeps and advances it.
    """

    def __init__(self, rows: IntArray, rng: np.random.Generator) -> None:
        self._rows = rows
        self._rng = rng
        self._left = rng.permutation(rows)
        self.ran_out = False

    def deal(self, count: int) -> IntArray:
        """Deals ``count`` different rows, at most as many as there are.

        Law: after any deals, no row has come two times more often than another.
        """
        if count <= len(self._left):
            dealt, self._left = self._left[:count], self._left[count:]
            return dealt
        self.ran_out = True
        last = self._left
        again = self._rng.permutation(np.setdiff1d(self._rows, last))
        more = count - len(last)
        self._left = self._rng.permutation(np.concatenate([again[more:], last]))
        return np.concatenate([last, again[:more]])
