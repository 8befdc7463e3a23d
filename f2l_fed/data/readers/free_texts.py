"""The column of a table whose texts are the inputs, each as it is written."""

from __future__ import annotations

import numpy as np

from f2l_fed.core.text_bytes import cut_text, normal_text
from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import Column
from f2l_fed.data.readers.table_columns import text_column_codes
from f2l_fed.data.readers.table_files import RawTable
from f2l_fed.data.readers.text_rows import GAP_TEXTS

_GAPS = {text.casefold() for text in GAP_TEXTS}


def read_free_texts(
    name: str, table: RawTable, length: int, findings: Findings
) -> tuple[Column, AnyArray] | None:
    """A column of texts, and (n,) float64, the place of each row's text, NaN for gaps.

    Args:
        name: Of the column.
        table: The table.
        length: Bytes of UTF-8 from which on texts are cut.
        findings: Takes remarks, and a problem where there are no texts.

    Returns:
        None where there are no texts.
    """
    codes, written = text_column_codes(table.columns[name])
    texts = [normal_text(text or "") for text in written]
    cut = [cut_text(text, length) for text in texts]
    known = np.array([text.casefold() not in _GAPS for text in texts], bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    if not counts[known].any():
        findings.problem(
            f"the column of texts {name!r} is empty", remedy="Name another one: text under [data]."
        )
        return None
    longer = np.array([len(a) < len(b) for a, b in zip(cut, texts, strict=True)], bool)
    if count := int(counts[known & longer].sum()):
        findings.remark(
            f"{number_of(count, 'text')} in column {name!r} longer than {length} bytes: the rest "
            "is cut off; text_bytes under [data] is the length, the same at all sites."
        )
    values = tuple(sorted({text for text, told in zip(cut, known, strict=True) if told}))
    place = {text: float(number) for number, text in enumerate(values)}
    lookup = [place[t] if told else np.nan for t, told in zip(cut, known, strict=True)]
    return Column(name=name, values=values, free=True), np.array([*lookup, np.nan])[codes]
