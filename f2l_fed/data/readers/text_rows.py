"""The rows of text tables: how many there are, their decimal mark, and their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.decimal_marks import MarkEvidence, decimal_mark
from f2l_fed.data.readers.files import MOST_VALUES, compression_of
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.text_format import TextFormat
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

_BLOCK = 2**22


def common_decimal(
    forms: Mapping[Path, TextFormat], config: ReadingConfig, findings: Findings
) -> str:
    """The decimal mark of a table's text files, which all of them share.

    Reads the files once, a piece at a time, so that one that is too large is refused before it is
    held.

    Args:
        forms: The files, each with its form.
        config: Settings; a decimal mark there goes first.
        findings: Takes remarks.

    Raises:
        DataError: If a file can't be read or they hold too many values.
    """
    comma, point, total = MarkEvidence(), MarkEvidence(), 0
    for path, form in forms.items():
        comma_here, point_here, values = _surveyed(path, form, total)
        comma, point, total = comma + comma_here, point + point_here, total + values
    if config.decimal:
        return config.decimal
    separators = {form.separator for form in forms.values()}
    decimal = decimal_mark(comma, point, separated_by_commas="," in separators)
    if decimal == ",":
        findings.remark("The decimal mark is a comma.")
    elif ";" in separators and point.unclear and not point.alone:
        findings.remark(
            "Numbers such as 1.234 were read with a decimal point; if it separates thousands, set "
            'decimal = "," under [data].'
        )
    return decimal


def _surveyed(path: Path, form: TextFormat, before: int) -> tuple[MarkEvidence, MarkEvidence, int]:
    """Evidence for the comma and the point as decimal marks, and the number of values."""
    comma, point, rows = MarkEvidence(), MarkEvidence(), 0

    def skip(_row: Any) -> str:
        nonlocal rows
        rows += 1
        if before + rows * len(form.header) > MOST_VALUES:
            return "error"
        return "skip"

    # Names may occur twice in a header; that is told later.
    texts = {name: pa.string() for name in form.header}
    conversion = csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
    try:
        with (
            pa.input_stream(str(path), compression=compression_of(path)) as stream,
            csv.open_csv(stream, convert_options=conversion, **_options(form, skip)) as reader,
        ):
            for batch in reader:
                rows += batch.num_rows
                require_size(before + rows * len(form.header), path)
                for column in batch.columns:
                    if pa.types.is_string(column.type):
                        comma += MarkEvidence.of(column, ",")
                        point += MarkEvidence.of(column, ".")
    except (OSError, pa.ArrowException, UnicodeError) as error:
        require_size(before + rows * len(form.header), path)
        raise unreadable(path, error) from error
    return comma, point, rows * len(form.header)


def _options(form: TextFormat, skip: Callable[[Any], str]) -> dict[str, Any]:
    return {
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
    }


def read_text(
    path: Path,
    form: TextFormat,
    decimal: str,
    config: ReadingConfig,
    findings: Findings,
    kept: Collection[str],
    *,
    told: bool = False,
) -> tuple[Any, IntArray]:
    """Reads a text table whose form is known.

    Args:
        path: The file.
        form: Its form.
        decimal: Decimal mark of the whole table.
        config: Settings.
        findings: Takes rows of another length as problems.
        kept: Columns that stay texts, whatever they look like.
        told: Whether empty rows are remarked.

    Returns:
        A ``pyarrow.Table`` without empty rows, and (n,) int64, the rows' numbers.

    Raises:
        DataError: If the file can't be read.
    """
    odd: list[tuple[int, int]] = []

    def skip(row: Any) -> str:
        odd.append((int(row.number), int(row.actual_columns)))
        return "skip"

    texts = {
        name: pa.string()
        for name in form.header
        if tidy_name(name) in kept or _is_kept_as_text(name, config)
    }
    conversion = csv.ConvertOptions(
        column_types=texts,
        decimal_point=decimal,
        null_values=list(GAP_TEXTS),
        # Texts keep what is written: "none" may be a label.
        strings_can_be_null=False,
    )
    try:
        with pa.input_stream(str(path), compression=compression_of(path)) as stream:
            table = csv.read_csv(stream, convert_options=conversion, **_options(form, skip))
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise unreadable(path, error) from error
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
    if told and len(kept) < table.num_rows:
        gone = number_of(table.num_rows - len(kept), "empty row is", "empty rows are")
        findings.remark(f"{gone} left out.")
    return table.take(kept), numbers[kept]


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


def _is_kept_as_text(name: str, config: ReadingConfig) -> bool:
    tidy = tidy_name(name).casefold()
    asked = {
        tidy_name(text).casefold() for text in (config.label, config.group, config.text) if text
    }
    return tidy in asked or (not config.label and tidy in LABEL_NAMES)


LABEL_NAMES = ("label", "y", "class", "target", "labels", "klasse")
"""Names under which a column of labels is found, the first ones first."""


def require_size(values: int, path: Path) -> None:
    """Raises DataError for a table of too many values."""
    if values > MOST_VALUES:
        raise DataError(
            "the table is too large",
            where=str(path),
            expected=f"at most {MOST_VALUES:,} values",
            got=f"{values:,}",
            remedy="Leave out rows or columns.",
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a table whose file can't be read."""
    return DataError(
        "the table can't be read",
        where=str(path),
        got=(str(error).splitlines() or [type(error).__name__])[0],
        remedy="Save or copy it again.",
    )
