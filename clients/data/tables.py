"""CSV and Parquet files with a label column, as arrays."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from f2l_fed.data.array_checks import AnyArray
from f2l_fed.errors import DataError

LABEL_COLUMNS = ("label", "y")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def read_csv(path: Path) -> tuple[AnyArray, AnyArray]:
    """Reads a CSV file whose first line names the columns; see `split_table`."""
    return split_table(_read(path, "csv"), str(path))


def read_parquet(path: Path) -> tuple[AnyArray, AnyArray]:
    """Reads a Parquet file; see `split_table`."""
    table = _read(path, "parquet")
    # A row index that pandas has stored is not a measurement.
    kept = [name for name in table.column_names if not _PANDAS_INDEX.fullmatch(name)]
    return split_table(table.select(kept), str(path))


def split_table(table: Any, where: str) -> tuple[AnyArray, AnyArray]:
    """Splits a table into features and labels.

    Args:
        table: A ``pyarrow.Table``; the column ``label``, else ``y``, holds the labels and all
            others hold numbers.
        where: File that errors name.

    Returns:
        x (n, F) float64 in the order of the columns, and y (n,) integers, floats or strings.

    Raises:
        DataError: If a column is missing, has no name or another one's, or a value is invalid.
    """
    names = table.column_names
    if odd := [name for at, name in enumerate(names) if not name or name in names[:at]]:
        raise DataError(
            "the column's name is missing or not unique",
            where=where,
            got=repr(odd[0]),
            remedy="Name every column; with pandas, write the file with index=False.",
        )
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if label is None or len(names) < 2:
        raise DataError(
            "the column of labels or the other columns are missing",
            where=where,
            expected=f"a column named {' or '.join(LABEL_COLUMNS)}",
            got=f"columns {', '.join(names)}",
        )
    if not table.num_rows:
        raise DataError("the table has no rows", where=where)
    features = [_numbers(table, name, where) for name in names if name != label]
    return np.column_stack(features), _labels(table, label, where)


def _numbers(table: Any, name: str, where: str) -> AnyArray:
    from pyarrow import types

    column = table.column(name)
    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        written = column.to_pylist()
        row = next((row for row, value in enumerate(written) if not _is_number(value)), 0)
        raise _invalid_value("the value is not a number", where, name, row, written[row])
    with np.errstate(over="ignore"):
        values: AnyArray = column.to_numpy().astype(np.float64)
        odd = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    if odd.size:
        row = int(odd[0])
        raise _invalid_value(
            "the value is missing or not finite", where, name, row, column[row].as_py()
        )
    return values


def _labels(table: Any, name: str, where: str) -> AnyArray:
    from pyarrow import types

    column = table.column(name)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    written = column.to_pylist()
    for row, value in enumerate(written):
        if value is None or value == "":
            raise _invalid_value("the label is missing", where, name, row, value)
    return np.array(written)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _invalid_value(what: str, where: str, column: str, row: int, value: Any) -> DataError:
    return DataError(
        what,
        where=f"{where}, column {column!r}, data row {row + 1}",
        got="nothing" if value is None else repr(value),
        remedy="Correct the value, or remove the row or the column.",
    )


def _read(path: Path, kind: Literal["csv", "parquet"]) -> Any:
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError as error:
        raise DataError(
            "tables need the package pyarrow", remedy="Install it: pip install pyarrow."
        ) from error
    try:
        return csv.read_csv(path) if kind == "csv" else parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            "the table can't be read", where=str(path), got=str(error).splitlines()[0]
        ) from error
