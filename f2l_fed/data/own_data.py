"""Users' own data for simulations: one pool, or a file for each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from f2l_fed.data.dataset import Dataset, first_occurrences
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import FeatureEncoding, fit_encoding
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import WrittenLabels, label_key
from f2l_fed.data.readers.numbering import number_labels
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import DataError

__all__ = ["read_pool", "read_sites"]


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
    encoding = fit_encoding(raw, np.arange(len(raw)), config, findings)
    encoding = _centred([encoding], [raw])[0]
    x = encoding.encode(raw, findings)
    findings.require_none()
    if raw.labels is None or len(raw.labels.names) < 2:
        raise DataError(
            "all examples have the same label",
            where=str(path),
            expected="at least two classes",
            remedy="Add examples of another class.",
        )
    copies = len(x) - len(first_occurrences(x))
    if copies:
        findings.remark(f"{copies} exact copies of other examples are left out.")
    dataset = Dataset(
        name=path.stem,
        x=x,
        y=raw.labels.codes,
        classes=len(raw.labels.names),
        groups=raw.groups,
    )
    return dataset, findings.remarks


def read_sites(
    sites: Sequence[tuple[str, Path]], config: ReadingConfig
) -> tuple[Dataset, tuple[str, ...]]:
    """Reads the data of several sites, one file or folder each.

    Labels of one name are one class, and columns of one name one feature. Gaps are filled in by
    each site's own median, and which features there are follows from all sites together.

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
    encodings = _common(
        [fit_encoding(raw, np.arange(len(raw)), config, findings) for raw in raws.values()]
    )
    encodings = _centred(encodings, list(raws.values()))
    x, y = [], []
    for raw, encoding in zip(raws.values(), encodings, strict=True):
        here = _findings(raw)
        x.append(encoding.encode(raw, here))
        y.append(number_labels(raw, names, here))
        here.require_none()
    shapes = {name: part.shape[1:] for name, part in zip(raws, x, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError(
            "the sites have examples of different shapes",
            got=", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:SHOWN]),
            remedy="Bring them to one: --set data.resize=[64,64] or data.mode=rgb for images, "
            "data.ignore=[...] for columns that not all have.",
        )
    if len(names) < 2:
        raise DataError("all examples have the same label", expected="at least two classes")
    dataset = Dataset(
        name="sites",
        x=np.concatenate(x),
        y=np.concatenate(y),
        classes=len(names),
        groups=np.repeat(np.arange(len(raws)), [len(part) for part in x]),
        group_names=tuple(raws),
    )
    return dataset, findings.remarks


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


def _centred(
    encodings: Sequence[FeatureEncoding], raws: Sequence[RawExamples]
) -> list[FeatureEncoding]:
    """The encodings with one mean for all where numbers lie so far from 0 that float32 would lose
    their differences, such as times in seconds; a scenario's own scaling takes no notice."""
    means = {}
    for name in {column.name for column in encodings[0].columns if not column.values}:
        found = [
            raw.inputs[:, place]
            for raw in raws
            for place, column in enumerate(raw.columns)
            if column.name == name and not column.values
        ]
        values = np.concatenate(found) if found else np.empty(0)
        values = values[~np.isnan(values)]
        if values.size and np.ptp(values) < _FAR * abs(values.mean()):
            means[name] = float(values.mean())
    return [
        FeatureEncoding(
            columns=tuple(
                replace(column, mean=means.get(column.name, column.mean))
                for column in encoding.columns
            )
        )
        for encoding in encodings
    ]


_FAR = 1e-3
"""Share of their mean that numbers vary by, below which they are centred."""


def _common(encodings: Sequence[FeatureEncoding]) -> list[FeatureEncoding]:
    """The encodings with the features of all of them: every text, and every gap."""
    texts: dict[str, set[str]] = {}
    gaps: set[str] = set()
    for encoding in encodings:
        for column in encoding.columns:
            texts.setdefault(column.name, set()).update(column.values)
            if column.indicator:
                gaps.add(column.name)
    fills = [{column.name: column.fill for column in encoding.columns} for encoding in encodings]
    first = encodings[0].columns
    return [
        FeatureEncoding(
            columns=tuple(
                replace(
                    column,
                    values=column.values
                    if texts[column.name] == set(column.values)
                    else tuple(sorted(texts[column.name])),
                    indicator=column.name in gaps,
                    fill=fill.get(column.name, column.fill),
                )
                for column in first
            )
        )
        for fill in fills
    ]
