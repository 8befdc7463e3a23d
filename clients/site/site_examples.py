"""A site's examples as they reach the network: read, numbered, divided and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.site.config import SiteConfig
from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.config import AGREED
from f2l_fed.data.readers.division import kept_aside, same_rows
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
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
    if config.data.scale == AGREED and not config.data.scales:
        raise DataError(
            "the scales of the federation are not here yet",
            where="[data] scale",
            remedy="Get them: f2l-site data scales, once enough sites have told theirs.",
            code="scales-not-agreed",
        )
    findings = Findings(str(folder / config.data.path))
    raw, names, y, train, held_out, test = _divided(folder, config, findings)
    private = bool(config.privacy.epsilon)
    encoding = fit_encoding(raw, train, config.data, findings, private=private)
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


def training_rows(folder: Path, config: SiteConfig) -> tuple[RawExamples, IntArray]:
    """A site's examples as they were read, and the rows of them that it learns from.

    Args:
        folder: The configuration's folder.
        config: The configuration.

    Returns:
        The examples, and (m,) int64.

    Raises:
        DataError: As of `read_site_examples`.
    """
    raw, _, _, train, _, _ = _divided(folder, config, Findings(str(folder / config.data.path)))
    return raw, train


def _divided(
    folder: Path, config: SiteConfig, findings: Findings
) -> tuple[RawExamples, tuple[str, ...], IntArray, IntArray, IntArray, IntArray]:
    """Examples with names and numbers of their labels, and the rows of each part."""
    raw = read_raw(folder / config.data.path, config.data)
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
    return raw, names, y, *_parts(raw, y, config, findings)


def _further(
    folder: Path,
    config: SiteConfig,
    names: tuple[str, ...],
    encoding: FeatureEncoding,
    findings: Findings,
) -> Examples:
    """The examples of a file of their own to measure on."""
    known = encoding if encoding.columns or encoding.white else None
    raw = read_raw(folder / config.validation, config.data, known)
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
        f"Of {number_of(len(raw), 'example')}, only the {rows.size} of the folder for {name} "
        f"{'counts' if rows.size == 1 else 'count'}."
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
                f"{number_of(held_out.size, 'example')} of the folder for validation not used: "
                "validation names others."
            )
        return train, none, test
    if held_out.size:
        _remark_overlap(raw.inputs[train], raw.inputs[held_out], findings)
        return train, held_out, test
    aside = kept_aside(
        raw.take(train),
        y[train],
        config.validation_fraction,
        findings,
        site=config.name,
        private=bool(config.privacy.epsilon),
    )
    held_out = train[aside]
    return np.setdiff1d(train, held_out), held_out, test


def _remark_overlap(train: AnyArray, held_out: AnyArray, findings: Findings) -> None:
    both = same_rows(np.concatenate([train, held_out]))
    again = int(np.isin(both[len(train) :], both[: len(train)]).sum())
    if again:
        copies = "is an exact copy" if again == 1 else "are exact copies"
        findings.remark(
            f"{again} of {number_of(len(held_out), 'validation example')} {copies} of examples to "
            "learn from, so the measured accuracy says too much."
        )
