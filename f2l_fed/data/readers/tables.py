"""Tables: which columns are features, which one the label, and what each holds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import WrittenLabels, text_codes, tidy_labels, tidy_name
from f2l_fed.data.readers.numerals import is_date, parse_numerals, without_unit
from f2l_fed.data.readers.raw_examples import Column, ExamplePlaces, RawExamples
from f2l_fed.data.readers.table_files import GAP_TEXTS, LABEL_NAMES, RawTable, read_table_files
from f2l_fed.data.readers.text_format import is_numeral
from f2l_fed.errors import DataError

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


def read_tables(
    files: Sequence[Path],
    config: ReadingConfig,
    findings: Findings,
    *,
    where: str,
    labelled: bool = True,
    features: Sequence[str] = (),
) -> RawExamples:
    """Reads the parts of a table.

    Args:
        files: Text or Parquet files.
        config: Settings.
        findings: Takes remarks and problems.
        where: File or folder that errors name.
        labelled: Whether a column of labels is needed.
        features: Columns that a network was trained on: all others are left out without a word.

    Raises:
        DataError: If the table can't be read or a column is missing.
    """
    table = read_table_files(files, config, findings)
    names = list(table.columns)
    label = _label_name(names, config, where, findings, needed=labelled)
    group, ignored = "", set()
    if labelled:
        group = _named_column(names, config.group, "group", findings) if config.group else ""
        ignored = {_named_column(names, name, "ignore", findings) for name in config.ignore}
    findings.require_none()
    if not len(table.places.row):
        raise DataError("the table has no rows", where=where)
    labels = _labels(table.columns[label], table.decimal, config, findings) if label else None
    columns, values = [], []
    for name in names:
        if name in (label, group) or name in ignored or (features and name not in features):
            continue
        found = _feature(name, table, findings, forced=name in features)
        if found is not None:
            columns.append(found[0])
            values.append(found[1])
    findings.require_none()
    if not columns:
        raise DataError(
            "no column is a feature",
            where=where,
            got=f"columns {', '.join(map(repr, names[:20]))}",
            remedy="Add columns of numbers, or name another separator under [data].",
        )
    return RawExamples(
        where=where,
        inputs=np.column_stack(values),
        columns=tuple(columns),
        labels=labels,
        groups=_codes(table.columns[group])[0] if group else None,
        places=table.places,
    )


def _label_name(
    names: Sequence[str], config: ReadingConfig, where: str, findings: Findings, *, needed: bool
) -> str:
    """Name of the column of labels; "" where there is none and none is needed."""
    if config.label:
        if not needed and tidy_name(config.label) not in names:
            return ""
        return _named_column(names, config.label, "label", findings)
    for known in LABEL_NAMES:
        for name in names:
            if name.casefold() == known:
                if name not in ("label", "y"):
                    findings.remark(f"The column {name!r} is taken for the labels.")
                return name
    if not needed:
        return ""
    raise DataError(
        "there is no column of labels",
        where=where,
        expected=f"a column named {' or '.join(LABEL_NAMES[:2])}",
        got=f"columns {', '.join(map(repr, names[:20]))}{', …' if len(names) > 20 else ''}",
        remedy="Add a first line that names every column."
        if all(is_numeral(name, ".") for name in names)
        else 'Name it under [data] in site.toml, such as label = "result"; for simulate, '
        "--set data.label=result.",
    )


def _named_column(names: Sequence[str], name: str, key: str, findings: Findings) -> str:
    tidy = tidy_name(name)
    if tidy in names:
        return tidy
    alike = [known for known in names if known.casefold() == tidy.casefold()]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(tidy, names, n=1)
    findings.problem(
        f"the column that [data] {key} names does not exist",
        [repr(name)],
        expected=f"one of {', '.join(map(repr, names[:20]))}",
        remedy=f"Did you mean {close[0]!r}?" if close else "Check the name.",
    )
    return ""


def _labels(column: Any, decimal: str, config: ReadingConfig, findings: Findings) -> WrittenLabels:
    codes, names = _codes(column)
    if decimal == "," and all(is_numeral(name, ",") for name in names if name):
        names = [name.replace(",", ".") if name else name for name in names]
    if pa.types.is_temporal(column.type):
        findings.problem(
            "the column of labels holds dates or times",
            [str(names[0])],
            remedy="Name another column as label under [data].",
        )
    gaps = (*GAP_TEXTS, *config.unlabelled)
    return tidy_labels(codes, names, unlabelled=gaps, findings=findings)


def _codes(column: Any) -> tuple[IntArray, list[str | None]]:
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


def _feature(
    name: str, table: RawTable, findings: Findings, *, forced: bool
) -> tuple[Column, AnyArray] | None:
    """A column as (n,) float64 with NaN for gaps; None where it is left out, with a remark."""
    column, kind = table.columns[name], table.columns[name].type
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if types.is_null(kind):
        findings.remark(f"Column {name!r} is empty and left out.")
        return (Column(name=name), np.full(len(column), np.nan)) if forced else None
    if types.is_temporal(kind):
        _leave_out(name, "dates or times", findings)
        return None
    if not forced and _ROW_NUMBER.fullmatch(name) and _all_different(column):
        _leave_out(name, "a running number or an id", findings)
        return None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _of_texts(name, column, table, findings, forced=forced)
    if not (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    ):
        findings.problem(
            "columns hold neither numbers nor texts",
            [f"{name!r}: {kind}"],
            remedy="Turn them into columns of numbers, or add them to ignore under [data].",
        )
        return None
    values = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float64)
    return Column(name=name), _finite(name, values, table.places, findings)


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
    name: str, column: Any, table: RawTable, findings: Findings, *, forced: bool
) -> tuple[Column, AnyArray] | None:
    codes, texts = _codes(column)
    tidy = [tidy_name(text or "") for text in texts]
    known = np.array([text.casefold() not in _GAPS for text in tidy], bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    total = int(counts[known].sum())
    if not total:
        findings.remark(f"Column {name!r} is empty and left out.")
        return (Column(name=name), np.full(len(codes), np.nan)) if forced else None
    numbers = _numbers(name, tidy, known, table, findings)
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
        return Column(name=name), _finite(name, lookup[codes], table.places, findings)
    dates = int(sum(counts[place] for place, text in enumerate(tidy) if is_date(text)))
    if 2 * dates >= total and not forced:
        _leave_out(name, "dates or times", findings)
        return None
    values = tuple(sorted({text for text, told in zip(tidy, known, strict=True) if told}))
    many = len(values) > MOST_CATEGORIES or 2 * len(values) > total > _FEW
    if (many or max(map(len, values)) > _LONGEST) and not forced:
        _leave_out(name, f"texts, {len(values)} different ones,", findings)
        return None
    number = {text: place for place, text in enumerate(values)}
    lookup = np.array([*(float(number.get(text, np.nan)) for text in tidy), np.nan])
    return Column(name=name, values=values), lookup[codes]


def _numbers(
    name: str, texts: Sequence[str], known: AnyArray, table: RawTable, findings: Findings
) -> AnyArray:
    """Texts as numbers, NaN for those that are none; what had to be removed is remarked."""
    told = np.flatnonzero(known)
    bare, unit = without_unit([texts[place] for place in told.tolist()])
    values, separated = parse_numerals(bare, table.decimal)
    other = "." if table.decimal == "," else ","
    if np.isnan(values).any():
        again, also = parse_numerals(bare, other)
        if not np.isnan(again).any():
            values, separated = again, also
            findings.remark(f"The decimal mark of column {name!r} is {other!r}.")
    numbers = np.full(len(texts), np.nan)
    numbers[told] = values
    if not np.isnan(values).all():
        if separated:
            findings.remark(f"Separators between thousands in column {name!r} were removed.")
        if unit:
            findings.remark(f"The unit {unit!r} in column {name!r} was removed.")
    return numbers


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
