"""The division of examples into those to learn from and those to measure on."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from f2l_fed.core.random_streams import generator_for
from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.errors import DataError


def kept_aside(
    raw: RawExamples,
    y: IntArray,
    fraction: float,
    findings: Findings,
    *,
    site: str,
    private: bool = False,
) -> IntArray:
    """The examples that a site keeps aside to measure on: a fixed share of every class, at least
    one example, but never the last.

    Args:
        raw: The examples.
        y: (n,) int64, their classes.
        fraction: The share.
        findings: Takes remarks on copies and groups.
        site: Name of the site, from which the draw follows.
        private: Whether no example may decide on which side another one is, as with a privacy
            budget.

    Returns:
        (m,) int64.

    Raises:
        DataError: If no class has an example to spare.
    """
    order = torch.randperm(len(y), generator=generator_for(site, "validation")).numpy()
    copies = same_rows(raw.inputs)
    repeated = len(copies) - len(np.unique(copies))
    rows = _share_of_every_class(y, order, fraction)
    kept = "are spread over both sides of the split, so the measured accuracy says too much"
    if raw.groups is not None:
        rows = held_out_groups(raw.groups, y, order, fraction)
        count = len(np.unique(raw.groups))
        kept_groups = number_of(count, "group of examples is", "groups of examples are")
        findings.remark(f"{kept_groups} kept together in the split.")
        if repeated and not private:
            joined = joined_groups(raw.groups, copies)
            together = held_out_groups(joined, y, order, fraction)
            if set(y[together]) == set(y[rows]):
                rows = together
        if not np.isin(copies[rows], np.delete(copies, rows)).any():
            kept = "are kept on one side of the split"
    elif repeated and not private:
        together = held_out_groups(copies, y, order, fraction)
        if set(y[together]) == set(y[rows]):
            rows, kept = together, "are kept on one side of the split"
    if repeated:
        copied = number_of(repeated, "example is an exact copy", "examples are exact copies")
        findings.remark(f"{copied} of others; copies {kept}.")
        _remark_contradictions(copies, y, findings)
    if not rows.size:
        raise DataError(
            "no class has two examples"
            if raw.groups is None
            else "no group can be kept aside without taking the last one of a class",
            where=f"site {site}",
            remedy="Add examples, or name others under validation.",
        )
    return rows


def _share_of_every_class(y: IntArray, order: IntArray, fraction: float) -> IntArray:
    held_out = []
    for label in np.unique(y):
        members = order[y[order] == label]
        count = max(round(fraction * len(members)), 1)
        held_out.append(members[: min(count, len(members) - 1)])
    return np.concatenate(held_out)


def _remark_contradictions(copies: IntArray, y: IntArray, findings: Findings) -> None:
    pairs = np.unique(np.stack([copies, y]), axis=1)
    odd = int((np.bincount(pairs[0]) > 1).sum())
    if odd:
        occurring = number_of(odd, "example occurs", "examples occur")
        findings.remark(f"{occurring} several times with different labels.")


def same_rows(inputs: AnyArray) -> IntArray:
    """A number for each example, the same for exact copies.

    Args:
        inputs: (n, ...) examples.

    Returns:
        (n,) int64, numbered in order of the first occurrence.

    >>> same_rows(np.array([[1, 2], [3, 4], [1, 2]])).tolist()
    [0, 1, 0]
    """
    numbers: dict[bytes, int] = {}
    rows = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    digests = (hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.fromiter(
        (numbers.setdefault(digest, len(numbers)) for digest in digests), np.int64, len(rows)
    )


def joined_groups(first: IntArray, second: IntArray) -> IntArray:
    """Groups that keep together what either of two groupings does.

    Args:
        first: (n,) int64, examples of one number belong together.
        second: (n,) int64, likewise.

    Returns:
        (n,) int64.

    >>> joined_groups(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist()
    [0, 0, 0, 1]
    """
    _, first = np.unique(first, return_inverse=True)
    _, second = np.unique(second, return_inverse=True)
    roots = list(range(int(first.max(initial=-1)) + int(second.max(initial=-1)) + 2))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = number = roots[roots[number]]
        return number

    others = second + int(first.max(initial=-1)) + 1
    for one, other in zip(first.tolist(), others.tolist(), strict=True):
        roots[root(other)] = root(one)
    joined = np.array([root(number) for number in first.tolist()], np.int64)
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)


def held_out_groups(
    groups: IntArray, labels: IntArray, order: IntArray, fraction: float
) -> IntArray:
    """Chooses examples to measure on so that no group is on both sides.

    About the share of every class is chosen: never more than it, or one example where that is
    less, unless a group of several is the only way; and never the last group of a class.

    Args:
        groups: (n,) int64, examples of one number stay together.
        labels: (n,) int64.
        order: (n,) int64, examples in random order; groups are taken in the order of their first.
        fraction: Share of every class.

    Returns:
        (m,) int64, the examples to measure on.
    """
    _, groups = np.unique(groups, return_inverse=True)
    total = np.bincount(labels)
    wanted = np.where(total > 0, np.maximum(np.rint(fraction * total), 1), 0).astype(np.int64)
    held, left = np.zeros_like(total), total.copy()
    first = np.unique(groups[order], return_index=True)[1]
    sequence = groups[order][np.sort(first)]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    chosen: dict[int, None] = {}
    # A second pass with larger groups for classes that have got none.
    for generous in (False, True):
        if generous and (held[total > 0] > 0).all():
            break
        for group in sequence.tolist():
            if group in chosen:
                continue
            counts = np.bincount(labels[members[group]], minlength=len(total))
            touched = counts > 0
            fits = (held + counts)[touched] <= wanted[touched]
            lacks = generous and bool((held[touched] == 0).any())
            if (fits.all() or lacks) and ((left - counts)[touched] > 0).all():
                held, left = held + counts, left - counts
                chosen[group] = None
    taken = [members[group] for group in chosen]
    return np.concatenate(taken) if taken else np.empty(0, np.int64)
