"""Text and Parquet files, and folders of their parts, as one table of pyarrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.files import kind_of
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.raw_examples import ExamplePlaces
from f2l_fed.data.readers.text_format import is_numeral, text_format
from f2l_fed.data.readers.text_rows import common_decimal, read_text, require_size, unreadable
from f2l_fed.errors import DataError

LABEL_GAPS = ("", "NA", "na", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "Null", "null")
"""Texts that stand for a missing label."""


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
    told: bool = False,
) -> RawTable:
    """Reads the parts of one table.

    Args:
        files: Text or Parquet files with the same columns, in any order.
        config: Settings.
        findings: Takes remarks and problems, such as rows with too many fields.
        texts: Columns of text files that stay texts, whatever they look like.
        told: Whether empty rows of text files, which are left out, are remarked.

    Raises:
        DataError: If a file can't be read at all, or there are too many values.
    """
    forms = {
        file: text_format(file, config, findings) for file in files if kind_of(file) != "parquet"
    }
    decimal = common_decimal(forms, config, findings)
    tables, rows = [], []
    for file in files:
        if file in forms:
            form = forms[file]
            table, numbers = read_text(file, form, decimal, config, findings, texts, told=told)
        else:
            table = _parquet(file)
            numbers = np.arange(table.num_rows, dtype=np.int64) + 1
        table = _named(table, file)
        require_size(table.num_rows * table.num_columns, files[0] if len(files) == 1 else file)
        tables.append(table)
        rows.append(numbers)
    places = ExamplePlaces(
        files=tuple(file.name for file in files),
        file=np.repeat(np.arange(len(files)), [len(part) for part in rows]).astype(np.int64),
        row=np.concatenate(rows),
    )
    require_size(sum(table.num_rows * table.num_columns for table in tables), files[0].parent)
    names = list(tables[0].column_names)
    for file, table in zip(files, tables, strict=True):
        if odd := set(names) ^ set(table.column_names):
            findings.problem(
                "parts of the table have other columns than the first part",
                [f"{file.name}: {', '.join(sorted(map(repr, odd))[:SHOWN])}"],
                remedy="Bring all parts to the same columns, or remove those that do not belong.",
            )
    findings.require_none()
    columns = {}
    for name in names:
        parts = [table.column(name) for table in tables]
        with named_errors(name, parts[-1].type, files[-1].name):
            columns[name] = _joined(parts, decimal)
    return RawTable(columns=columns, places=places, decimal=decimal)


def _parquet(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            facts = parquet.ParquetFile(file).metadata
            require_size(facts.num_rows * facts.num_columns, path)
            # From the open file, so that folder names are not taken for columns.
            return parquet.ParquetFile(file).read()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


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


@contextmanager
def named_errors(name: str, kind: object, where: str) -> Iterator[None]:
    """Turns an error of pyarrow into a DataError that names a column and its type."""
    try:
        yield
    except (pa.ArrowException, UnicodeError) as error:
        raise DataError(
            "a column can't be read",
            where=where,
            expected="numbers or texts",
            got=f"{name!r} of type {kind}",
            remedy="Convert the column, or add it to ignore under [data].",
        ) from error


def _joined(parts: Sequence[Any], decimal: str) -> Any:
    """The parts of a column as one; of different types as texts, unless they are numbers."""
    types = {part.type for part in parts if not pa.types.is_null(part.type)}
    if len(types) > 1:
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
        common = pa.float64() if numbers else pa.string()
        parts = [_cast(part, common, decimal) for part in parts]
    elif types:
        parts = [part.cast(next(iter(types))) for part in parts]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)


def _cast(column: Any, kind: Any, decimal: str) -> Any:
    """A column as another type; numbers become texts with the table's decimal mark."""
    cast = column.cast(kind, safe=False)
    if pa.types.is_string(kind) and pa.types.is_floating(column.type):
        return pc.replace_substring(cast, ".", decimal)
    return cast
