"""The decimal mark of a table, decided over all rows of all its text files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkEvidence:
    """The evidence for one decimal mark.

    Args:
        alone: Number of numerals that make sense with this mark alone, such as 1,5 for a comma.
        unclear: Number of those that have it once before three digits, such as 1,234.
        thousands: Number of those in which it can but separate thousands, such as 1,234,567.
    """

    alone: int = 0
    unclear: int = 0
    thousands: int = 0

    def __add__(self, other: MarkEvidence) -> MarkEvidence:
        return MarkEvidence(
            alone=self.alone + other.alone,
            unclear=self.unclear + other.unclear,
            thousands=self.thousands + other.thousands,
        )

    @classmethod
    def of(cls, texts: Any, mark: str) -> MarkEvidence:
        """The evidence that a column of texts has, a ``pyarrow.Array``."""
        texts = texts.filter(pc.match_substring(texts, mark))
        if not len(texts):
            return cls()
        # Few texts of a column are long, and none of them is a number.
        texts = pc.utf8_trim_whitespace(texts)
        d, t = re.escape(mark), re.escape("." if mark == "," else ",")
        lone = rf"[1-9]\d{{0,2}}{d}\d{{3}}"
        alone = (
            rf"(\d+{d}\d{{1,2}}|\d+{d}\d{{4,}}|0+{d}\d+|\d{{4,}}{d}\d+|{d}\d+"
            rf"|\d{{1,3}}({t}\d{{3}})+{d}\d+)([eE][+-]?\d+)?"
        )
        return cls(
            alone=_count(texts, alone),
            unclear=_count(texts, lone),
            thousands=_count(texts, rf"[1-9]\d{{0,2}}({d}\d{{3}}){{2,}}"),
        )


def decimal_mark(comma: MarkEvidence, point: MarkEvidence, *, separated_by_commas: bool) -> str:
    """The decimal mark for which more numerals speak.

    A lone ``1,234`` speaks for thousands only where commas separate the columns.

    Args:
        comma: Evidence for the comma.
        point: Evidence for the point.
        separated_by_commas: Whether commas separate the columns.

    >>> decimal_mark(MarkEvidence(alone=2), MarkEvidence(alone=1), separated_by_commas=False)
    ','
    """
    if comma.alone or point.alone:
        return "," if comma.alone > point.alone else "."
    if bool(comma.thousands) != bool(point.thousands):
        return "," if point.thousands else "."
    if separated_by_commas or comma.thousands:
        return "."
    return "," if comma.unclear else "."


def _count(texts: Any, pattern: str) -> int:
    matches = pc.match_substring_regex(texts, rf"^[+-]?{pattern}$")
    return int(pc.sum(matches.cast(pa.int64())).as_py() or 0)
