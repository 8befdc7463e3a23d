"""The one way in for users' own data: a path becomes raw examples, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray
from f2l_fed.data.readers.arrays import examples_of_arrays, read_npz
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.files import kind_of, require_readable, visible_entries
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.errors import DataError

KINDS = (
    "an .npz, .csv, .tsv or .parquet file, a folder of their parts, or a folder of image folders"
)
"""What can be read, in words."""

READERS: dict[str, Callable[[Path], tuple[AnyArray, AnyArray]]] = {}
"""Readers of further kinds of files by their suffix: from a path to x and y as in an ``.npz``."""

_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def read_raw(
    path: Path, config: ReadingConfig, encoding: FeatureEncoding | None = None
) -> RawExamples:
    """Reads labelled examples; rows without a label are left out and counted.

    Args:
        path: An ``.npz`` file with x and y; a text or Parquet table with a column of labels, or a
            folder of its parts; or a folder of images with one sub-folder per class.
        config: Settings.
        encoding: The preprocessing at training, where these are further examples: no column of it
            is left out, whatever a small file holds.

    Raises:
        DataError: If the examples can't be used, with everything that is wrong.
    """
    require_readable(path)
    findings = Findings(str(path))
    parts = table_parts(path, findings)
    # Packages that only some kinds of data need are imported with their first file.
    if parts:
        from f2l_fed.data.readers.tables import read_tables

        raw = read_tables(parts, config, findings, where=str(path), encoding=encoding)
    elif config.text:
        raise no_texts(path)
    elif path.is_dir():
        from f2l_fed.data.readers.image_folder import read_image_folder

        white = encoding.white if encoding else 0.0
        raw = read_image_folder(path, config, findings, white=white)
    elif kind_of(path) == "npz":
        raw = read_npz(path, config, findings)
    elif path.suffix.lower() in READERS:
        x, y = READERS[path.suffix.lower()](path)
        raw = examples_of_arrays(path, {"x": x, "y": y}, ReadingConfig(), findings)
    else:
        raise unknown_kind(path)
    findings.require_none()
    raw = _labelled(without_gaps(raw, config, findings), findings)
    findings.require_none()
    return replace(raw, remarks=findings.remarks)


def table_parts(path: Path, findings: Findings) -> Sequence[Path]:
    """The files of a table: one file, or the parts in a folder; empty for data of other kinds.

    Raises:
        DataError: If a folder holds parts of several kinds, or a part can't be read.
    """
    if not path.is_dir():
        return (path,) if kind_of(path) in ("text", "parquet") else ()
    # Spark and its like mark their folders with such files.
    entries = [entry for entry in visible_entries(path) if not entry.name.startswith("_")]
    parts = [entry for entry in entries if kind_of(entry) in ("text", "parquet")]
    if any(entry.is_dir() for entry in entries):
        return ()
    tables = [part for part in parts if part.suffix.lower() != ".txt"]
    if tables and len(tables) < len(parts):
        notes = [part.name for part in parts if part not in tables]
        findings.remark(f"Texts beside the parts of the table are left out: {', '.join(notes)}.")
        parts = tables
    if len({kind_of(part) for part in parts}) > 1:
        raise DataError(
            "the folder holds tables of several kinds",
            where=str(path),
            got=", ".join({kind_of(part): part.name for part in parts}.values()),
            remedy="Keep the parts of one table in a folder of their own.",
        )
    for part in parts:
        require_readable(part)
    return parts


def no_texts(path: Path) -> DataError:
    """The error for data that are no table, where texts are asked for."""
    return DataError(
        "a column of texts is named, and the data are no table",
        where=str(path),
        expected="a .csv, .tsv or .parquet file, or a folder of their parts",
        remedy="Leave text out under [data].",
    )


def unknown_kind(path: Path) -> DataError:
    """The error for a file of a kind that is not read."""
    spreadsheet = path.suffix.lower() in _SPREADSHEETS
    return DataError(
        "unknown data format",
        where=str(path),
        expected=KINDS,
        remedy="Save the sheet as CSV (UTF-8)." if spreadsheet else "",
    )


def without_gaps(raw: RawExamples, config: ReadingConfig, findings: Findings) -> RawExamples:
    """The examples without rows that have gaps, or with a problem, where the settings ask so.

    Rows without the text that is the input are always left out, if they are not refused.
    """
    free = any(column.free for column in raw.columns)
    if not raw.columns or (config.gaps not in ("leave-out", "refuse") and not free):
        return raw
    numbers = [
        place for place, column in enumerate(raw.columns) if column.free or not column.values
    ]
    gaps = np.isnan(raw.inputs[:, numbers])
    rows = np.flatnonzero(gaps.any(axis=1))
    if not rows.size:
        return raw
    if config.gaps == "refuse":
        findings.problem(
            "rows have missing values",
            [
                f"{raw.columns[numbers[int(gaps[row].argmax())]].name!r} ({raw.places[row]})"
                for row in rows[:5]
            ],
            count=int(rows.size),
            remedy="Fill them in, or choose another treatment of gaps under [data].",
        )
        return raw
    gone = number_of(rows.size, "row with missing values is", "rows with missing values are")
    findings.remark(f"{gone} left out.")
    return raw.take(np.setdiff1d(np.arange(len(raw)), rows))


def _labelled(raw: RawExamples, findings: Findings) -> RawExamples:
    if raw.labels is None:
        return raw
    bare = np.flatnonzero(raw.labels.codes < 0)
    if len(bare) == len(raw):
        raise DataError("no example has a label", where=raw.where)
    if bare.size:
        findings.remark(
            f"{number_of(bare.size, 'example without a label is', 'examples without a label are')} "
            f"left out, the first at {raw.places[int(bare[0])]}."
        )
    return raw.take(np.flatnonzero(raw.labels.codes >= 0))
