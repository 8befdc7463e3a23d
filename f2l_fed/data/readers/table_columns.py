"""Columns of tables as features: numbers, texts of few values, or nothing to learn from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import label_key, text_codes, tidy_name
from f2l_fed.data.readers.numerals import is_date, parse_numerals, without_unit
from f2l_fed.data.readers.raw_examples import Column, ExamplePlaces
from f2l_fed.data.readers.table_files import RawTable
from f2l_fed.data.readers.text_rows import GAP_TEXTS

MOST_CATEGORIES = 32
"""Largest number of different texts of a column that is a feature."""

_ROW_NUMBER = re.compile(
    r"(row|record|sample)?[ _-]?(id|index|idx|nr|no|number|nummer|uuid|guid)\.?|lfd\.? ?nr\.?"
    r"|unnamed: \d+|__index_level_\d+__|\(column \d+ without a name\)|.*[ _-]id",
    re.I,
)
_FEW = 12
"""Number of rows up to which every text may be another one in a column that is a feature."""

_LONGEST = 60
"""Most characters of a text that is a feature, or shown."""

_GAPS = {text.casefold() for text in GAP_TEXTS}
_LARGEST = float(np.finfo(np.float32).max)


def read_column(
    name: str, table: RawTable, findings: Findings, *, forced: bool, texts: bool = False
) -> tuple[Column, AnyArray] | None:
    """A column as a feature: what it is called and (n,) float64, NaN for gaps.

    Args:
        name: Of the column.
        table: The table.
        findings: Takes remarks, and values that can't be used as problems.
        forced: Whether the column has been a feature in training, and stays one.
        texts: Whether its values are texts, even those that look like numbers.

    Returns:
        None where it is left out, with a remark.
    """
    column, kind = table.columns[name], table.columns[name].type
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if types.is_null(kind):
        return _empty(name, len(column), findings, forced=forced)
    if types.is_temporal(kind):
        _leave_out(name, "dates or times", findings)
        return None
    if not forced and _ROW_NUMBER.fullmatch(name) and _all_different(column):
        _leave_out(name, "a running number or an id", findings)
        return None
    numeric = (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )
    if numeric and texts:
        column, kind = column.cast(pa.string()), pa.string()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _of_texts(name, column, table, findings, forced=forced, texts_only=texts)
    if not numeric:
        findings.problem(
            "columns hold neither numbers nor texts",
            [f"{name!r}: {kind}"],
            remedy="Turn them into columns of numbers, or add them to ignore under [data].",
        )
        return None
    values = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float64)
    return Column(name=name), _finite(name, values, table.places, findings)


def _empty(
    name: str, rows: int, findings: Findings, *, forced: bool
) -> tuple[Column, AnyArray] | None:
    """An empty column, whose values are missing where it has to be a feature."""
    if forced:
        findings.remark_empty(name)
        return Column(name=name), np.full(rows, np.nan)
    findings.remark(f"Column {name!r} is empty and left out.")
    return None


def _finite(name: str, values: AnyArray, places: ExamplePlaces, findings: Findings) -> AnyArray:
    odd = np.flatnonzero(np.abs(values) > _LARGEST)
    if odd.size:
        _bad_values(
            f"values in column {name!r} are infinite or too large for float32",
            places.first(odd[:SHOWN].tolist(), values[odd[:SHOWN]].tolist()),
            int(odd.size),
            findings,
        )
    return values


def _of_texts(
    name: str, column: Any, table: RawTable, findings: Findings, *, forced: bool, texts_only: bool
) -> tuple[Column, AnyArray] | None:
    codes, texts = text_column_codes(column)
    tidy = [tidy_name(text or "") for text in texts]
    known = np.array([text.casefold() not in _GAPS for text in tidy], bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    total = int(counts[known].sum())
    if not total:
        return _empty(name, len(codes), findings, forced=forced)
    numbers, unit = np.full(len(texts), np.nan), ""
    if not texts_only:
        numbers, unit = _numbers(name, tidy, known, table, findings)
    if 2 * int(counts[known & ~np.isnan(numbers)].sum()) >= total:
        bad = np.flatnonzero(known & np.isnan(numbers))
        if bad.size:
            rows = np.flatnonzero(np.isin(codes, bad))
            shown = [str(texts[codes[row]])[:_LONGEST] for row in rows[:SHOWN]]
            _bad_values(
                f"values in column {name!r} are no numbers",
                table.places.first(rows[:SHOWN].tolist(), shown),
                int(rows.size),
                findings,
            )
        lookup = np.append(np.where(known, numbers, np.nan), np.nan)
        return Column(name=name, unit=unit), _finite(name, lookup[codes], table.places, findings)
    dates = int(sum(counts[place] for place, text in enumerate(tidy) if is_date(text)))
    if 2 * dates >= total and not forced:
        _leave_out(name, "dates or times", findings)
        return None
    # Texts that differ by case alone are one.
    spelling = {
        label_key(text): text
        for text, told in sorted(zip(tidy, known, strict=True), reverse=True)
        if told
    }
    values = tuple(sorted(spelling.values()))
    many = len(values) > MOST_CATEGORIES or 2 * len(values) > total > _FEW
    if (many or max(map(len, values)) > _LONGEST) and not forced:
        _leave_out(name, f"texts, {len(values)} different ones,", findings)
        return None
    number = {label_key(text): place for place, text in enumerate(values)}
    lookup = np.array([*(float(number.get(label_key(text), np.nan)) for text in tidy), np.nan])
    return Column(name=name, values=values), lookup[codes]


def _numbers(
    name: str, texts: Sequence[str], known: AnyArray, table: RawTable, findings: Findings
) -> tuple[AnyArray, str]:
    """Texts as numbers, NaN for those that are none, and their unit; both are remarked."""
    told = np.flatnonzero(known)
    bare, unit = without_unit([texts[place] for place in told.tolist()])
    values, separated = parse_numerals(bare, table.decimal)
    other = "." if table.decimal == "," else ","
    if np.isnan(values).any():
        again, also = parse_numerals(bare, other)
        # The mark that suits more; what is left is told as no number.
        if np.isnan(again).sum() < np.isnan(values).sum():
            values, separated = again, also
            findings.remark(f"The decimal mark of column {name!r} is {other!r}.")
    numbers = np.full(len(texts), np.nan)
    numbers[told] = values
    if not np.isnan(values).all():
        if separated:
            findings.remark(f"Separators between thousands in column {name!r} were removed.")
        if unit:
            findings.remark(f"The unit {unit!r} in column {name!r} was removed.")
    return numbers, unit


def _leave_out(name: str, kind: str, findings: Findings) -> None:
    findings.remark(f"Column {name!r} holds {kind} and is left out.")


def _bad_values(what: str, places: Sequence[str], count: int, findings: Findings) -> None:
    findings.problem(
        what,
        places,
        count=count,
        remedy="Correct them, empty the cells, or add the column to ignore under [data].",
    )


def _all_different(column: Any) -> bool:
    return bool(pc.count_distinct(column).as_py() == len(column) and not column.null_count)


def text_column_codes(column: Any) -> tuple[IntArray, list[str | None]]:
    """The place of each value among the different ones, -1 for none, and these as texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        mask = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        codes = np.full(len(mask), -1, np.int64)
        codes[mask], texts = text_codes(column.drop_null().to_numpy())
        return codes, texts
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()
