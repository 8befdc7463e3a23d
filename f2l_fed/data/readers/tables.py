"""Tables: which columns are features, which one the label, and what each holds."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.free_texts import read_free_texts
from f2l_fed.data.readers.labels import WrittenLabels, tidy_labels, tidy_name
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.data.readers.table_columns import read_column, text_column_codes
from f2l_fed.data.readers.table_files import LABEL_GAPS, named_errors, read_table_files
from f2l_fed.data.readers.text_format import is_numeral
from f2l_fed.data.readers.text_rows import LABEL_NAMES
from f2l_fed.errors import DataError


def read_tables(
    files: Sequence[Path],
    config: ReadingConfig,
    findings: Findings,
    *,
    where: str,
    labelled: bool = True,
    encoding: FeatureEncoding | None = None,
) -> RawExamples:
    """Reads the parts of a table.

    Args:
        files: Text or Parquet files.
        config: Settings.
        findings: Takes remarks and problems.
        where: File or folder that errors name.
        labelled: Whether a column of labels is needed; without, none is looked for.
        encoding: The encoding of the columns that a network was trained on: all of them are
            features, and others are left out without a word; so they are where the settings name
            columns.

    Raises:
        DataError: If the table can't be read or a column is missing.
    """
    if encoding is not None and not encoding.columns:
        raise DataError(
            "the network was not made from a table, or by an earlier version that did not keep the "
            "names of its columns",
            where=where,
            remedy="Make it again: f2l-site generate.",
        )
    known = {column.name: column for column in encoding.columns} if encoding else {}
    texts = {tidy_name(name) for name in config.categories}
    if encoding:
        texts = {name for name, one in known.items() if one.values or one.text_bytes}
    table = read_table_files(files, config, findings, texts=texts, told=not labelled)
    names = list(table.columns)
    label = _label_name(names, config, where, findings) if labelled else ""
    group, ignored = "", set()
    if labelled:
        group = _named_column(names, config.group, "group", findings) if config.group else ""
        ignored = {_named_column(names, name, "ignore", findings) for name in config.ignore}
    if encoding:
        encoding.suits(names, findings)
    free = encoding.text_bytes if encoding else config.text_bytes if config.text else 0
    named = [("text", config.text)] if free else [("columns", name) for name in config.columns]
    chosen = list(known) or [_named_column(names, name, key, findings) for key, name in named]
    findings.require_none()
    if not len(table.places.row):
        raise DataError("the table has no rows", where=where)
    labels, groups = None, None
    if label:
        with named_errors(label, table.columns[label].type, where):
            labels = _labels(table.columns[label], table.decimal, config, findings)
    if group:
        with named_errors(group, table.columns[group].type, where):
            groups = text_column_codes(table.columns[group])[0]
    columns, values = [], []
    for name in chosen or names:
        if name in (label, group) or name in ignored or name not in table.columns:
            continue
        forced = name in chosen or name in texts
        with named_errors(name, table.columns[name].type, where):
            found = (
                read_free_texts(name, table, free, findings)
                if free
                else read_column(name, table, findings, forced=forced, texts=name in texts)
            )
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
        groups=groups,
        places=table.places,
    )


def _label_name(names: Sequence[str], config: ReadingConfig, where: str, findings: Findings) -> str:
    """Name of the column of labels."""
    if config.label:
        return _named_column(names, config.label, "label", findings)
    for known in LABEL_NAMES:
        for name in names:
            if name.casefold() == known:
                if name not in ("label", "y"):
                    findings.remark(f"The column {name!r} is taken for the labels.")
                return name
    raise DataError(
        "there is no column of labels",
        where=where,
        expected=f"a column named {' or '.join(LABEL_NAMES[:2])}",
        got=f"columns {', '.join(map(repr, names[:20]))}{', …' if len(names) > 20 else ''}",
        remedy="Add a first line that names every column."
        if all(is_numeral(name, ".") for name in names)
        else 'Name it under [data] in site.toml, such as label = "result"; for simulate, '
        "--set data.label=result; for f2l-server init, --label result.",
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
    codes, names = text_column_codes(column)
    if decimal == "," and all(is_numeral(name, ",") for name in names if name):
        names = [name.replace(",", ".") if name else name for name in names]
    if pa.types.is_temporal(column.type):
        findings.problem(
            "the column of labels holds dates or times",
            [str(names[0])],
            remedy="Name another column as label under [data].",
        )
    return tidy_labels(
        codes, names, unlabelled=config.unlabelled, gaps=LABEL_GAPS, findings=findings
    )
