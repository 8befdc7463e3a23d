"""A site's examples as they reach the network: read, numbered, divided and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.site.config import SiteConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.division import held_out_groups, joined_groups, same_rows
from f2l_fed.data.readers.feature_encoding import FeatureEncoding, fit_encoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.numbering import number_labels, output_names
from f2l_fed.data.readers.raw_examples import (
    TEST,
    TRAIN,
    VALIDATION,
    ExamplePlaces,
    RawExamples,
)
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Labelled examples: inputs (n, *input_shape) float32 and labels (n,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteExamples:
    """The examples of a site.

    Args:
        train: Examples to learn from.
        validation: Examples to measure on; never learned from.
        test: Examples that the site does not use; None where no folder names such.
        labels: Meaning of the network's outputs; empty where the data have numbers too.
        encoding: The encoding of a table's columns as features.
        places: Where each of the examples to learn from was found.
        remarks: What was converted or left out, as sentences.
    """

    train: Examples
    validation: Examples
    test: Examples | None = None
    labels: tuple[str, ...]
    encoding: FeatureEncoding = field(default_factory=FeatureEncoding)
    places: ExamplePlaces
    remarks: tuple[str, ...] = ()


def read_site_examples(folder: Path, config: SiteConfig) -> SiteExamples:
    """Reads the examples that a configuration names.

    Args:
        folder: The configuration's folder.
        config: The configuration.

    Raises:
        DataError: If they can't be used, with everything that is wrong.
    """
    raw = read_raw(folder / config.data.path, config.data)
    findings = Findings(raw.where)
    for remark in raw.remarks:
        findings.remark(remark)
    if raw.labels is None or len(raw.labels.names) < 2:
        raise DataError(
            "all examples have the same label",
            where=raw.where,
            expected="at least two classes",
            remedy="Add examples of another class.",
            code="too-few-classes",
        )
    shared = config.policy.shared_labels
    names = config.labels or output_names(raw.labels, findings, shared=shared, where=raw.where)
    y = number_labels(raw, names, findings)
    findings.require_none()
    train, held_out, test = _parts(raw, y, config, findings)
    private = bool(config.privacy.epsilon)
    scaled = bool(config.data.scale)
    if scaled and private and raw.columns:
        findings.remark("The numbers are not scaled, since there is a privacy budget.")
    encoding = fit_encoding(raw, train, config.data, findings, scaled=scaled, private=private)
    x = encoding.encode(raw, findings)
    findings.require_none()

    def chosen(rows: IntArray) -> Examples:
        return Examples(x=torch.from_numpy(x[rows]), y=torch.from_numpy(y[rows]))

    validation = chosen(held_out)
    if config.validation:
        validation = _further(folder, config, names, encoding, findings)
        if validation.x.shape[1:] != x.shape[1:]:
            raise DataError(
                "the validation examples have another shape",
                where=str(folder / config.validation),
                expected=str(tuple(x.shape[1:])),
                got=str(tuple(validation.x.shape[1:])),
            )
        _remark_overlap(x[train], validation.x.numpy(), findings)
    return SiteExamples(
        train=chosen(train),
        validation=validation,
        test=chosen(test) if test.size else None,
        labels=tuple(names),
        encoding=encoding,
        places=raw.places.take(train),
        remarks=findings.remarks,
    )


def _further(
    folder: Path,
    config: SiteConfig,
    names: tuple[str, ...],
    encoding: FeatureEncoding,
    findings: Findings,
) -> Examples:
    """The examples of a file of their own to measure on."""
    raw = read_raw(folder / config.validation, config.data, encoding if encoding.columns else None)
    here = Findings(raw.where)
    raw = part_of(raw, VALIDATION, here)
    y = number_labels(raw, names, here)
    x = encoding.encode(raw, here)
    here.require_none()
    for remark in (*raw.remarks, *here.remarks):
        findings.remark(f"In {config.validation}: {remark}")
    return Examples(x=torch.from_numpy(x), y=torch.from_numpy(y))


def part_of(raw: RawExamples, kind: int, findings: Findings) -> RawExamples:
    """The examples of one part where folders name parts, with a remark; else all of them.

    Args:
        raw: The examples.
        kind: `VALIDATION` or `TEST`.
        findings: Takes the remark.

    Raises:
        DataError: If folders name parts, but not this one.
    """
    if raw.part is None:
        return raw
    name = {VALIDATION: "validation", TEST: "test"}[kind]
    rows = np.flatnonzero(raw.part == kind)
    if not rows.size:
        raise DataError(
            f"the folders name parts of the data, but none for {name}",
            where=raw.where,
            remedy="Name the folder of the examples to measure on, such as the one below it.",
        )
    findings.remark(
        f"Only the {rows.size} examples of the folder for {name} count; {len(raw) - rows.size} of "
        "other folders do not."
    )
    return raw.take(rows)


def _parts(
    raw: RawExamples, y: IntArray, config: SiteConfig, findings: Findings
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows to learn from, to measure on and to leave alone, in their own order."""
    none = np.empty(0, np.int64)
    everything = np.arange(len(raw))
    part = np.zeros(len(raw), np.int64) if raw.part is None else raw.part
    train, held_out, test = (everything[part == kind] for kind in (TRAIN, VALIDATION, TEST))
    if not train.size:
        raise DataError("there are no examples to learn from", where=raw.where)
    if config.validation:
        if held_out.size:
            findings.remark(
                f"{held_out.size} examples of the folder for validation are not used, since "
                "validation names others."
            )
        return train, none, test
    if held_out.size:
        _remark_overlap(raw.inputs[train], raw.inputs[held_out], findings)
        return train, held_out, test
    held_out = train[_held_out(raw.take(train), y[train], config, findings)]
    return np.setdiff1d(train, held_out), held_out, test


def _held_out(raw: RawExamples, y: IntArray, config: SiteConfig, findings: Findings) -> IntArray:
    """A fixed share of every class to measure on: at least one example, but never the last."""
    order = torch.randperm(len(y), generator=generator_for(config.name, "validation")).numpy()
    copies = same_rows(raw.inputs)
    repeated = len(copies) - len(np.unique(copies))
    rows = _share_of_every_class(y, order, config.validation_fraction)
    kept = "are spread over both sides of the split, so the measured accuracy says too much"
    if raw.groups is not None:
        rows = held_out_groups(raw.groups, y, order, config.validation_fraction)
        count = len(np.unique(raw.groups))
        findings.remark(f"{count} groups of examples are kept together in the split.")
        # With a privacy budget, no example decides on which side another one is.
        if repeated and not config.privacy.epsilon:
            joined = joined_groups(raw.groups, copies)
            together = held_out_groups(joined, y, order, config.validation_fraction)
            if set(y[together]) == set(y[rows]):
                rows = together
        if not np.isin(copies[rows], np.delete(copies, rows)).any():
            kept = "are kept on one side of the split"
    elif repeated and not config.privacy.epsilon:
        # With a privacy budget, no example decides on which side another one is.
        together = held_out_groups(copies, y, order, config.validation_fraction)
        if set(y[together]) == set(y[rows]):
            rows, kept = together, "are kept on one side of the split"
    if repeated:
        findings.remark(f"{repeated} examples are exact copies of others; copies {kept}.")
        _remark_contradictions(copies, y, findings)
    if not rows.size:
        raise DataError(
            "no class has two examples"
            if raw.groups is None
            else "no group can be kept aside without taking the last one of a class",
            where=f"site {config.name}",
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
        findings.remark(f"{odd} examples occur several times with different labels.")


def _remark_overlap(train: AnyArray, held_out: AnyArray, findings: Findings) -> None:
    both = same_rows(np.concatenate([train, held_out]))
    again = int(np.isin(both[len(train) :], both[: len(train)]).sum())
    if again:
        findings.remark(
            f"{again} of {len(held_out)} validation examples are exact copies of examples to learn "
            "from, so the measured accuracy says too much."
        )
