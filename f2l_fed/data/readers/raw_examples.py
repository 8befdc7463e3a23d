"""Examples as a reader has found them, before features are encoded and labels are numbered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.labels import WrittenLabels, label_key

TRAIN, VALIDATION, TEST = range(3)
"""Parts of the data, where folders name them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExamplePlaces:
    """The places of examples in their files.

    Args:
        files: Names of the files.
        file: (n,) int64, position of each example's file.
        row: (n,) int64, row in it as a spreadsheet counts; -1 where the file is one example.
    """

    files: tuple[str, ...]
    file: IntArray
    row: IntArray

    def __getitem__(self, example: int) -> str:
        name, row = self.files[int(self.file[example])], int(self.row[example])
        return name if row < 0 else f"{name}:{row}"

    def take(self, rows: IntArray) -> ExamplePlaces:
        """The places of some of the examples."""
        return replace(self, file=self.file[rows], row=self.row[rows])

    def first(self, rows: Iterable[int], values: Iterable[object]) -> list[str]:
        """Texts of values with their places, for a problem."""
        return [f"{value!r} ({self[row]})" for row, value in zip(rows, values, strict=True)]


NOWHERE = ExamplePlaces(files=(), file=np.empty(0, np.int64), row=np.empty(0, np.int64))
"""The places of examples that come from no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Args:
        name: Its name.
        values: The texts that its numbers stand for; empty for a column of numbers.
        unit: The unit of its numbers.
        free: Whether the texts are inputs themselves, each as it is written, and no categories.
    """

    name: str
    values: tuple[str, ...] = ()
    unit: str = ""
    free: bool = False

    def key(self, text: str) -> str:
        """The text by which two spellings count as one of its texts."""
        return text if self.free else label_key(text)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawExamples:
    """The examples of a file or folder.

    Args:
        where: The file or folder, for errors.
        inputs: (n, C, H, W) images, uint8 or float32 in [0, 1]; or (n, F) float64, in which a
            column of texts holds their places in `Column.values` and NaN is a gap.
        columns: The F columns; empty for images.
        labels: The labels; None where the data have none, as for predictions.
        groups: (n,) int64, examples of one number belong together; or None.
        part: (n,) int64 of `TRAIN`, `VALIDATION`, `TEST` where folders name them; or None.
        white: Value of white in images of floats, as their files hold them; 0 for others.
        places: The place of each example; empty where no file is named.
        remarks: What was converted or left out, as sentences.
    """

    where: str
    inputs: AnyArray
    columns: tuple[Column, ...] = ()
    labels: WrittenLabels | None
    groups: IntArray | None = None
    part: IntArray | None = None
    white: float = 0.0
    places: ExamplePlaces = field(default_factory=lambda: NOWHERE)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: IntArray) -> RawExamples:
        """Some of the examples."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        return replace(
            self,
            inputs=self.inputs[rows],
            labels=None if self.labels is None else self.labels.take(rows),
            groups=None if self.groups is None else self.groups[rows],
            part=None if self.part is None else self.part[rows],
            places=self.places.take(rows) if self.places.files else self.places,
        )
