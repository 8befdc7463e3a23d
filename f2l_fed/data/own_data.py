"""Users' own data for simulations: one pool, or a file for each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from f2l_fed.core.text_bytes import bytes_of
from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.dataset import Dataset, first_occurrences
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.feature_encoding import unit_images
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import WrittenLabels, label_key
from f2l_fed.data.readers.matching import match_columns
from f2l_fed.data.readers.numbering import number_labels
from f2l_fed.data.readers.raw_examples import Column, RawExamples
from f2l_fed.data.readers.reading import no_texts, read_raw, table_parts
from f2l_fed.errors import DataError

__all__ = ["read_pool", "read_public", "read_sites"]


def read_pool(path: Path, config: ReadingConfig) -> tuple[Dataset, tuple[str, ...]]:
    """Reads a file or folder as a dataset, by the readers of sites.

    Args:
        path: Whatever a site may have.
        config: Settings of the reading.

    Returns:
        The dataset, its classes numbered as its labels are sorted; and remarks.

    Raises:
        DataError: If the data can't be used, with everything that is wrong.
    """
    raw = read_raw(path, config)
    findings = _findings(raw)
    # Every site fits its own; the remarks on all examples are the same.
    fit_encoding(raw, np.arange(len(raw)), config, findings)
    findings.require_none()
    x = _inputs(raw)
    if raw.labels is None or len(raw.labels.names) < 2:
        raise DataError(
            "all examples have the same label",
            where=str(path),
            expected="at least two classes",
            remedy="Add examples of another class.",
        )
    copies = len(x) - len(first_occurrences(x))
    if copies:
        gone = number_of(
            copies, "exact copy of another example is", "exact copies of other examples are"
        )
        findings.remark(f"{gone} left out.")
    dataset = Dataset(
        name=path.stem,
        x=x,
        y=raw.labels.codes,
        classes=len(raw.labels.names),
        groups=raw.groups,
        columns=_without_units(raw.columns),
    )
    return dataset, findings.remarks


def read_public(path: Path, config: ReadingConfig) -> tuple[AnyArray, tuple[str, ...]]:
    """Reads public examples like those of sites, to measure a backbone's features on.

    Args:
        path: Whatever a site may have; a table of texts needs no labels.
        config: Settings of the reading.

    Returns:
        (n, ...) float32 inputs, as sites have them, and remarks.

    Raises:
        DataError: If the data can't be used.
    """
    if not config.text:
        dataset, remarks = read_pool(path, config)
        return dataset.x, remarks
    findings = Findings(str(path))
    if not (parts := table_parts(path, findings)):
        raise no_texts(path)
    from f2l_fed.data.readers.tables import read_tables

    raw = read_tables(parts, config, findings, where=str(path), labelled=False)
    # Each text once, whichever rows have it.
    return bytes_of(raw.columns[0].values, config.text_bytes), findings.remarks


def read_sites(
    sites: Sequence[tuple[str, Path]], config: ReadingConfig
) -> tuple[Dataset, tuple[str, ...]]:
    """Reads the data of several sites, one file or folder each.

    Labels of one name are one class, and columns of one name one column, whose texts are those of
    all sites.

    Args:
        sites: Name and data of each site.
        config: Settings of the reading, the same for all.

    Returns:
        One dataset whose groups are the sites; and remarks.

    Raises:
        DataError: If data can't be used, or do not fit together.
    """
    if len({name for name, _ in sites}) < len(sites):
        raise DataError("a site is named twice", got=", ".join(name for name, _ in sites))
    raws = {name: read_raw(path, config) for name, path in sites}
    findings = Findings(", ".join(name for name, _ in sites))
    by_remark: dict[str, list[str]] = {}
    for name, raw in raws.items():
        for remark in raw.remarks:
            by_remark.setdefault(remark, []).append(name)
    for remark, those in by_remark.items():
        findings.remark(remark if len(those) == len(raws) else f"{', '.join(those)}: {remark}")
    names = _all_names([raw.labels for raw in raws.values() if raw.labels])
    if all(raw.columns for raw in raws.values()):
        raws = dict(zip(raws, match_columns(list(raws.values())), strict=True))
    parts, y = [], []
    for raw in raws.values():
        fit_encoding(raw, np.arange(len(raw)), config, findings)
        here = _findings(raw)
        parts.append(_inputs(raw))
        y.append(number_labels(raw, names, here))
        here.require_none()
    shapes = {name: part.shape[1:] for name, part in zip(raws, parts, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError(
            "the sites have examples of different shapes",
            got=", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:SHOWN]),
            remedy="Bring them to one: --set data.resize=[64,64] or data.mode=rgb for images, "
            "data.ignore=[...] for columns that not all have.",
        )
    x = np.concatenate(parts)
    if copies := len(x) - len(first_occurrences(x)):
        gone = number_of(copies, "exact copy of an example", "exact copies of examples")
        findings.remark(f"{gone} at any site left out.")
    if len(names) < 2:
        raise DataError("all examples have the same label", expected="at least two classes")
    dataset = Dataset(
        name="sites",
        x=x,
        y=np.concatenate(y),
        classes=len(names),
        groups=np.repeat(np.arange(len(raws)), [len(part) for part in parts]),
        group_names=tuple(raws),
        together=_together(list(raws.values())),
        columns=_without_units(next(iter(raws.values())).columns),
    )
    return dataset, findings.remarks


def _inputs(raw: RawExamples) -> AnyArray:
    """Images in [0, 1], or the numbers of columns before any preprocessing."""
    return raw.inputs if raw.columns else unit_images(raw.inputs)


def _together(raws: Sequence[RawExamples]) -> IntArray | None:
    """The groups within the sites, with numbers of their own at each; None without any."""
    told = [raw.groups for raw in raws if raw.groups is not None]
    if len(told) < len(raws):
        return None
    found: list[IntArray] = []
    for groups in told:
        first = 1 + int(found[-1].max()) if found else 0
        found.append(first + np.unique(groups, return_inverse=True)[1].astype(np.int64))
    return np.concatenate(found)


def _without_units(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns of numbers that stand without a unit in the simulated sites' files."""
    return tuple(replace(column, unit="") for column in columns)


def _findings(raw: RawExamples) -> Findings:
    findings = Findings(raw.where)
    for remark in raw.remarks:
        findings.remark(remark)
    return findings


def _all_names(labels: Sequence[WrittenLabels]) -> tuple[str, ...]:
    """The labels of all sites in one spelling: whole numbers by size, others sorted."""
    spelling: Mapping[str, str] = {
        label_key(name): name for found in reversed(labels) for name in reversed(found.names)
    }
    if all(found.whole for found in labels):
        return tuple(sorted(spelling.values(), key=int))
    return tuple(sorted(spelling.values()))
