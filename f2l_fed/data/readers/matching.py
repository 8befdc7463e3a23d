"""Columns of several tables matched by their names, as one federation needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from f2l_fed.data.array_checks import AnyArray
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import Column, RawExamples


def numbered_columns(count: int) -> tuple[Column, ...]:
    """Columns of a vector, which have numbers from 1 as names."""
    return tuple(Column(name=str(number)) for number in range(1, count + 1))


def match_columns(tables: Sequence[RawExamples]) -> tuple[RawExamples, ...]:
    """Brings tables to the columns of the first, with the texts of all of them.

    Columns that the first one does not have are left out.

    Args:
        tables: Examples of tables or vectors, at least one.

    Returns:
        The same examples; all have the same columns.

    Raises:
        DataError: If a column is missing, has texts in one table and numbers in another, or
            numbers in other units.
    """
    first = tables[0].columns
    names = [column.name for column in first]
    for table in tables:
        _require_columns(table, names)
    columns = [[_of_name(table, name) for name in names] for table in tables]
    common = tuple(
        replace(column, values=_all_texts([found[place] for found in columns]))
        for place, column in enumerate(first)
    )
    matched = []
    for table, found in zip(tables, columns, strict=True):
        findings = Findings(table.where)
        given = {column.name: place for place, column in enumerate(table.columns)}
        inputs = table.inputs[:, [given[name] for name in names]]
        for place, (own, wanted) in enumerate(zip(found, common, strict=True)):
            inputs[:, place] = _as_wanted(inputs[:, place], own, wanted, findings)
        findings.require_none()
        matched.append(replace(table, inputs=inputs, columns=common))
    return tuple(matched)


def _require_columns(table: RawExamples, names: Sequence[str]) -> None:
    known = {column.name for column in table.columns}
    findings = Findings(table.where)
    if missing := [name for name in names if name not in known]:
        findings.problem(
            "columns are missing that other sites have",
            map(repr, missing),
            remedy="Add them, which may be empty, or ignore them at all sites.",
        )
    findings.require_none()


def _of_name(table: RawExamples, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)


def _all_texts(found: Sequence[Column]) -> tuple[str, ...]:
    """The texts of a column in all tables, sorted, in the spelling of the first that has them."""
    spelling: dict[str, str] = {}
    for column in found:
        for text in column.values:
            spelling.setdefault(column.key(text), text)
    return tuple(sorted(spelling.values()))


def _as_wanted(values: AnyArray, own: Column, wanted: Column, findings: Findings) -> AnyArray:
    """The numbers of a column, or the places of its texts among all."""
    if wanted.values:
        if not own.values and not np.isnan(values).all():
            findings.problem(
                f"column {own.name!r} holds numbers here, and texts at other sites",
                remedy="Correct it, or list its texts under [data.categories].",
            )
            return values
        place = {own.key(text): float(number) for number, text in enumerate(wanted.values)}
        lookup = np.array([*(place[own.key(text)] for text in own.values), np.nan])
        codes: AnyArray = lookup[np.where(np.isnan(values), len(own.values), values).astype(int)]
        return codes
    if own.unit != wanted.unit and not np.isnan(values).all():
        findings.problem(
            f"numbers in column {own.name!r} have another unit than at other sites",
            [repr(own.unit)],
            expected=repr(wanted.unit) if wanted.unit else "none",
            remedy="Convert them.",
        )
    return values
