"""Text and Parquet files, and folders of their parts, as one table of pyarrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.files import MOST_VALUES, compression_of, kind_of
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.raw_examples import ExamplePlaces
from f2l_fed.data.readers.text_format import is_numeral, text_format
from f2l_fed.errors import DataError

GAP_TEXTS = (
    *(
        "",
        "-",
        "–",
        "?",
        ".",
        "NA",
        "N/A",
        "n/a",
        "#N/A",
        "#NA",
        "#NV",
        "NaN",
        "nan",
        "-nan",
        "-NaN",
    ),
    *("NULL", "null", "Null", "None", "none", "#DIV/0!", "#VALUE!", "#WERT!", "#REF!", "#BEZUG!"),
)
"""Texts that stand for a missing value in a text table."""

LABEL_GAPS = ("", "NA", "N/A", "#N/A", "NaN", "NULL")
"""Texts that stand for a missing label."""

_BLOCK = 2**22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawTable:
    """A table as its files hold it.

    Args:
        columns: A ``pyarrow.ChunkedArray`` for each column, by name.
        places: Where each row was found.
        decimal: Decimal mark of numbers that are still texts.
    """

    columns: dict[str, Any]
    places: ExamplePlaces
    decimal: str = "."


def read_table_files(
    files: Sequence[Path],
    config: ReadingConfig,
    findings: Findings,
    *,
    texts: Collection[str] = (),
) -> RawTable:
    """Reads the parts of one table.

    Args:
        files: Text or Parquet files with the same columns, in any order.
        config: Settings.
        findings: Takes remarks and problems, such as rows with too many fields.
        texts: Columns of text files that stay texts, whatever they look like.

    Raises:
        DataError: If a file can't be read at all, or there are too many values.
    """
    tables, rows, decimals = [], [], set()
    for file in files:
        if kind_of(file) == "parquet":
            table = _parquet(file)
            numbers = np.arange(table.num_rows, dtype=np.int64) + 1
        else:
            table, numbers, decimal = _text(file, config, findings, texts)
            decimals.add(decimal)
        table = _named(table, file)
        _require_size(table.num_rows * table.num_columns, files[0] if len(files) == 1 else file)
        tables.append(table)
        rows.append(numbers)
    places = ExamplePlaces(
        files=tuple(file.name for file in files),
        file=np.repeat(np.arange(len(files)), [len(part) for part in rows]).astype(np.int64),
        row=np.concatenate(rows),
    )
    _require_size(sum(table.num_rows * table.num_columns for table in tables), files[0].parent)
    names = list(tables[0].column_names)
    for file, table in zip(files, tables, strict=True):
        if odd := set(names) ^ set(table.column_names):
            findings.problem(
                "parts of the table have other columns than the first part",
                [f"{file.name}: {', '.join(sorted(map(repr, odd))[:SHOWN])}"],
                remedy="Bring all parts to the same columns, or remove those that do not belong.",
            )
    findings.require_none()
    columns = {name: _joined([table.column(name) for table in tables]) for name in names}
    return RawTable(columns=columns, places=places, decimal="," if "," in decimals else ".")


def _text(
    path: Path, config: ReadingConfig, findings: Findings, kept: Collection[str]
) -> tuple[Any, IntArray, str]:
    form = text_format(path, config, findings)
    odd: list[tuple[int, int]] = []

    def skip(row: Any) -> str:
        odd.append((int(row.number), int(row.actual_columns)))
        return "skip"

    texts = {
        name: pa.string()
        for name in form.header
        if tidy_name(name) in kept or _is_kept_as_text(name, config)
    }
    options = {
        # One thread, so that rows can be numbered.
        "read_options": csv.ReadOptions(
            use_threads=False,
            block_size=_BLOCK,
            skip_rows=form.skipped,
            encoding="utf8" if form.encoding in ("utf-8", "utf-8-sig") else form.encoding,
        ),
        "parse_options": csv.ParseOptions(
            delimiter=form.separator,
            newlines_in_values=True,
            # They are dropped below, where rows have got their numbers.
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        "convert_options": csv.ConvertOptions(
            column_types=texts,
            decimal_point=form.decimal,
            null_values=list(GAP_TEXTS),
            # Texts keep what is written: "none" may be a label.
            strings_can_be_null=False,
        ),
    }
    try:
        with pa.input_stream(str(path), compression=compression_of(path)) as stream:
            table = csv.read_csv(stream, **options)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise _unreadable(path, error) from error
    first = 2 + form.skipped
    numbers = np.arange(table.num_rows + len(odd), dtype=np.int64) + first
    if odd:
        # pyarrow counts the header as row 1.
        at = np.array([number for number, _ in odd], np.int64) - 1 + first - 1
        findings.problem(
            "rows have another number of fields than the header",
            [
                f"{fields} ({path.name}:{row})"
                for row, (_, fields) in zip(at.tolist(), odd[:SHOWN], strict=False)
            ],
            count=len(odd),
            expected=str(len(form.header)),
            remedy="Quote texts that hold the separator, or name the separator under [data].",
        )
        numbers = np.setdiff1d(numbers, at)[: table.num_rows]
    kept = _not_empty(table)
    return table.take(kept), numbers[kept], form.decimal


def _not_empty(table: Any) -> IntArray:
    """The rows that have a value."""
    left = np.arange(table.num_rows, dtype=np.int64)
    for column in table.columns:
        if not left.size:
            break
        empty = column.is_null().to_numpy().astype(bool)
        if pa.types.is_string(column.type):
            empty |= pc.equal(column, "").fill_null(True).to_numpy().astype(bool)
        left = left[empty[left]]
    return np.setdiff1d(np.arange(table.num_rows, dtype=np.int64), left)


def _parquet(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            facts = parquet.ParquetFile(file).metadata
            _require_size(facts.num_rows * facts.num_columns, path)
            # From the open file, so that folder names are not taken for columns.
            return parquet.ParquetFile(file).read()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _named(table: Any, path: Path) -> Any:
    """The table with tidy names of columns; raises DataError if one occurs twice."""
    names = [tidy_name(name.removeprefix("\ufeff")) for name in table.column_names]
    if sum(is_numeral(name, ".") for name in names) > len(names) / 2 and len(set(names)) < len(
        names
    ):
        raise DataError(
            "the first line holds values, not the names of the columns",
            where=str(path),
            got=", ".join(map(repr, names[:SHOWN])),
            remedy="Add a first line that names every column.",
        )
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(
            "columns have the same name",
            where=str(path),
            got=", ".join(map(repr, twice[:SHOWN])),
            remedy="Give every column a name of its own in the first line.",
        )
    empty = iter(range(1, len(names) + 1))
    return table.rename_columns(
        [name or f"(column {next(empty)} without a name)" for name in names]
    )


def _joined(parts: Sequence[Any]) -> Any:
    """The parts of a column as one; of different types as texts, unless they are numbers."""
    types = {part.type for part in parts if not pa.types.is_null(part.type)}
    if len(types) > 1:
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
        common = pa.float64() if numbers else pa.string()
        parts = [part.cast(common, safe=False) for part in parts]
    elif types:
        parts = [part.cast(next(iter(types))) for part in parts]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)


def _is_kept_as_text(name: str, config: ReadingConfig) -> bool:
    tidy = tidy_name(name).casefold()
    asked = {tidy_name(text).casefold() for text in (config.label, config.group) if text}
    return tidy in asked or (not config.label and tidy in LABEL_NAMES)


LABEL_NAMES = ("label", "y", "class", "target", "labels", "klasse")
"""Names under which a column of labels is found, the first ones first."""


def _require_size(values: int, path: Path) -> None:
    if values > MOST_VALUES:
        raise DataError(
            "the table is too large",
            where=str(path),
            expected=f"at most {MOST_VALUES:,} values",
            got=f"{values:,}",
            remedy="Leave out rows or columns.",
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        "the table can't be read",
        where=str(path),
        got=(str(error).splitlines() or [type(error).__name__])[0],
        remedy="Save or copy it again.",
    )
