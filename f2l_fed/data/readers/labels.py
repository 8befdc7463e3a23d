"""Labels as they are written, brought to one spelling."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.findings import SHOWN, Findings

MOST_LABELS = 1000
"""Largest number of named labels of a federation."""

LONGEST_LABEL = 80
"""Largest number of characters of such a name; all of them fit into an answer in any script."""

_WHOLE = re.compile(r"([+-]?\d{1,40})(\.0*)?")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf(inity)?", re.I)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenLabels:
    """Labels by their names.

    Args:
        codes: (n,) int64, the place of each label in ``names``; -1 for an example without one.
        names: The different labels in one spelling: whole numbers by size, others sorted.
        whole: Whether all of them are whole numbers.
    """

    codes: IntArray
    names: tuple[str, ...]
    whole: bool

    def take(self, rows: IntArray) -> WrittenLabels:
        """The labels of some of the examples, with the names that occur there."""
        codes = self.codes[rows]
        used = np.unique(codes[codes >= 0])
        number = np.full(len(self.names) + 1, -1)
        number[used] = np.arange(len(used))
        return replace(
            self, codes=number[codes], names=tuple(self.names[place] for place in used.tolist())
        )


def tidy_name(name: str) -> str:
    """A name in Unicode's composed form, without blanks at its ends and with single ones inside.

    >>> tidy_name("  Kratzer \\u0061\\u0308 ")
    'Kratzer ä'
    """
    return " ".join(unicodedata.normalize("NFC", name).translate(_INVISIBLE).split())


def label_key(name: str) -> str:
    """The text by which two spellings count as one label.

    >>> label_key(" Scratch"), label_key("02"), label_key("2.0")
    ('scratch', '2', '2')
    """
    whole = _WHOLE.fullmatch(name := tidy_name(name))
    return str(int(whole[1])) if whole else name.casefold()


def text_codes(values: AnyArray) -> tuple[IntArray, list[str | None]]:
    """The different values of an array as texts, None for NaN, and each value's place among them.

    Args:
        values: (n,) of integers of any size, floats, booleans, strings or bytes.
    """
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64).reshape(-1), [_text(value) for value in distinct.tolist()]


def tidy_labels(
    codes: IntArray,
    names: Sequence[str | None],
    *,
    unlabelled: Iterable[str],
    gaps: Collection[str] = (),
    findings: Findings,
) -> WrittenLabels:
    """Brings labels to one spelling; what was changed is remarked.

    Args:
        codes: (n,) int64, place of each label in ``names``; -1 for none.
        names: The labels as they are written; None for none.
        unlabelled: Labels that mark examples without one, in any spelling.
        gaps: Texts that stand for none in exactly this spelling: "Na" is a label, "NA" none.
        findings: Takes remarks, and a problem where the labels are no classes.
    """
    none = {label_key(name) for name in unlabelled}
    keys = ["" if name is None or tidy_name(name) in gaps else label_key(name) for name in names]
    keys = ["" if key in none else key for key in keys]
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    known = sorted({key for place, key in enumerate(keys) if key and counts[place]})
    whole = bool(known) and all(_WHOLE.fullmatch(key) for key in known)
    if whole:
        known.sort(key=int)
    elif odd := _quantities(known):
        findings.problem(
            "labels are not whole",
            map(repr, odd[:SHOWN]),
            count=len(odd),
            expected="whole numbers or names",
            remedy="Name another column of labels; a quantity to predict is no class.",
        )
    spellings: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key and counts[place]:
            spellings[key].append((int(counts[place]), names[place] or ""))
    shown = {key: key if whole else _usual(found) for key, found in spellings.items()}
    order = known if whole else sorted(known, key=shown.__getitem__)
    number = {key: place for place, key in enumerate(order)}
    lookup = np.array([*(number.get(key, -1) for key in keys), -1], np.int64)
    _remark_spellings(spellings, shown, findings, whole=whole)
    return WrittenLabels(codes=lookup[codes], names=tuple(shown[key] for key in order), whole=whole)


def _usual(found: Sequence[tuple[int, str]]) -> str:
    """The most frequent spelling of a label."""
    counts: dict[str, int] = defaultdict(int)
    for count, name in found:
        counts[tidy_name(name)] += count
    return max(counts, key=lambda name: (counts[name], name))


def _quantities(keys: Sequence[str]) -> list[str]:
    """The labels that are no whole numbers, where all are numbers."""
    if not all(_NUMBER.fullmatch(key) for key in keys):
        return []
    return [key for key in keys if not _WHOLE.fullmatch(key)]


def _remark_spellings(
    spellings: dict[str, list[tuple[int, str]]],
    shown: dict[str, str],
    findings: Findings,
    *,
    whole: bool,
) -> None:
    merged = {key: found for key, found in spellings.items() if len(found) > 1}
    if merged and not (whole and all(_same_numbers(found) for found in merged.values())):
        texts = [
            f"{shown[key]!r} for {', '.join(sorted(ascii(name) for _, name in found))}"
            for key, found in list(merged.items())[:SHOWN]
        ]
        findings.remark(
            f"Labels that differ in case, blanks or Unicode form are taken for one: "
            f"{'; '.join(texts)}{' and more' if len(merged) > SHOWN else ''}."
        )
    blanks = sum(len(found) == 1 and found[0][1] != shown[key] for key, found in spellings.items())
    if blanks and not whole:
        findings.remark(f"Blanks or Unicode forms of {number_of(blanks, 'label')} were tidied.")


def _same_numbers(found: Sequence[tuple[int, str]]) -> bool:
    return len({float(name) for _, name in found}) == 1


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("cp1252", "replace")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)
