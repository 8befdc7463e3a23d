"""Numbers that are written as texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from f2l_fed.data.array_checks import AnyArray
from f2l_fed.data.readers.text_format import is_numeral

_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ,]+\d{1,2}:\d{2}\S*.*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?"
)
_BLANKS = str.maketrans("", "", " \u00a0\u202f'’")


def parse_numerals(texts: Sequence[str], decimal: str) -> tuple[AnyArray, bool]:
    """Reads texts as numbers, with thousands separators where they group by three digits.

    Args:
        texts: The texts.
        decimal: The decimal mark.

    Returns:
        (n,) float64, NaN for a text that is no number; and whether thousands were separated.

    >>> parse_numerals(["1.234,5", " 2", "x"], ",")[0].tolist()
    [1234.5, 2.0, nan]
    """
    mark = "." if decimal == "," else ","
    d, m = re.escape(decimal), re.escape(mark)
    # No one separates the thousands of 0.123.
    grouped = re.compile(
        rf"[+-]?(?!0\d*{m})\d{{1,3}}({m}\d{{3}}|[ \u00a0\u202f'’]\d{{3}})+({d}\d*)?"
    )
    values = np.full(len(texts), np.nan)
    separated = False
    for place, written in enumerate(texts):
        text = written.strip().replace("\u2212", "-")
        if grouped.fullmatch(text):
            text, separated = text.translate(_BLANKS).replace(mark, ""), True
        if is_numeral(text, decimal):
            values[place] = float(text.replace(decimal, "."))
        elif text.lower().lstrip("+-") in ("inf", "infinity"):
            values[place] = np.inf
    return values, separated


_UNIT = re.compile(r"([$€£¥]?)\s*([+\-\u2212]?[\d.,'’ \u00a0\u202f]*\d)\s*([^\d\s.,]{0,8})")


def without_unit(texts: Sequence[str]) -> tuple[list[str], str]:
    """Texts without the unit that all of them have, such as "%", "mm" or "€"; and that unit.

    >>> without_unit(["5 mm", "1,5 mm"]), without_unit(["5 mm", "5 g"])[1]
    ((['5', '1,5'], 'mm'), '')
    """
    found = [_UNIT.fullmatch(text.strip()) for text in texts]
    units = {(match[1], match[3]) for match in found if match}
    if len(units) != 1 or None in found:
        return list(texts), ""
    before, after = units.pop()
    return [match[2] for match in found if match], before or after


def is_date(text: str) -> bool:
    """Whether a text is a date or a time.

    >>> is_date("2026-11-29 12:00"), is_date("29.11.26"), is_date("1.5")
    (True, True, False)
    """
    return bool(_DATE.fullmatch(text.strip()))
