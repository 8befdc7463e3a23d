"""The numbering of labels: which output of a network stands for which label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import WrittenLabels, label_key
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.errors import DataError

MOST_CLASSES = 1000
"""Largest number of classes of a site."""


def output_names(
    labels: WrittenLabels, findings: Findings, *, shared: bool, where: str
) -> tuple[str, ...]:
    """The labels in the order of the outputs, found from the training examples.

    Args:
        labels: Of the training examples.
        findings: Takes remarks.
        shared: Whether label k means the same at every site: then nothing may depend on which
            labels occur here.
        where: File that errors name.

    Returns:
        The names; empty where the labels are the numbers of the outputs.

    Raises:
        DataError: If shared labels are no output numbers, or there are too many classes.
    """
    names = labels.names
    if len(names) > MOST_CLASSES:
        raise DataError(
            "there are too many different labels for classes",
            where=where,
            expected=f"at most {MOST_CLASSES}",
            got=str(len(names)),
            remedy="Name the column of labels under [data] in site.toml.",
        )
    numbers = [int(name) for name in names] if labels.whole else []
    if numbers == list(range(len(names))):
        return ()
    if not shared:
        if numbers:
            findings.remark(
                f"The labels {_list(names)} are not numbered from 0 without a gap, so they are "
                f"taken for names of {number_of(len(names), 'class', 'classes')}."
            )
        if "-1" in names:
            findings.remark(
                "The label -1 is taken for a class; if it marks examples without a label, set "
                'unlabelled = ["-1"] under [data].'
            )
        return names
    if not numbers or numbers[0] < 0 or numbers[-1] >= MOST_CLASSES:
        raise DataError(
            "labels mean the same at all sites of this federation, so these have to be named in "
            "the order that all have agreed on",
            where=where,
            expected=f"labels in site.toml, or numbers from 0 to {MOST_CLASSES - 1}",
            got=_list(names),
            remedy="Write labels = [...] with all names of the federation, also those that do not "
            "occur here.",
        )
    missing = numbers[-1] + 1 - len(numbers)
    findings.remark(
        f"Labels are the numbers of the network's outputs here; of 0 to {numbers[-1]}, "
        f"{number_of(missing, 'does', 'do')} not occur ({_list(names)} do). If they are "
        f"counted from 1, name them under labels."
    )
    return ()


def number_labels(
    raw: RawExamples, names: Sequence[str], findings: Findings, *, remedy: str = ""
) -> IntArray:
    """The output of each example's label: its place among the names, or itself without any.

    Args:
        raw: Examples, all with a label.
        names: The labels in the order of the outputs; empty where labels are output numbers.
        findings: Takes the labels that are unknown as a problem.
        remedy: The way to mend that.

    Returns:
        (n,) int64; -1 for an unknown label.
    """
    if (labels := raw.labels) is None:
        raise DataError("the examples have no labels", where=raw.where)
    if names:
        place = {label_key(name): number for number, name in enumerate(names)}
        outputs = [place.get(label_key(name), -1) for name in labels.names]
    else:
        numbers = [int(name) if labels.whole else -1 for name in labels.names]
        outputs = [number if 0 <= number < MOST_CLASSES else -1 for number in numbers]
    found = np.array(outputs, np.int64)[labels.codes]
    unknown = np.flatnonzero(found < 0)
    if unknown.size:
        first = unknown[np.unique(labels.codes[unknown], return_index=True)[1]][:SHOWN]
        findings.problem(
            "labels are not among those of the site",
            raw.places.first(first.tolist(), (labels.names[labels.codes[row]] for row in first)),
            count=int(unknown.size),
            expected=f"one of {_list(names)}" if names else "the numbers of the outputs",
            remedy=remedy or "Correct them, or name all labels in site.toml.",
        )
    return found


def _list(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
