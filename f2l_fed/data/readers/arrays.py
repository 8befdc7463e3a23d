"""An ``.npz`` file of arrays as examples."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from f2l_fed.data.array_checks import (
    AnyArray,
    channels_first,
    not_whole,
    require_inputs,
    require_one_each,
    unit_range,
)
from f2l_fed.data.dataset import read_arrays
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.files import MOST_VALUES
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import WrittenLabels, text_codes, tidy_labels
from f2l_fed.data.readers.matching import numbered_columns
from f2l_fed.data.readers.raw_examples import Column, ExamplePlaces, RawExamples
from f2l_fed.errors import DataError

_LARGEST = float(np.finfo(np.float32).max)
_INPUTS, LABELS, GROUPS = "x", "y", "groups"
"""Names of the arrays."""


def read_npz(
    path: Path, config: ReadingConfig, findings: Findings, *, labelled: bool = True
) -> RawExamples:
    """Reads arrays ``x``, ``y`` and optionally ``groups``, never as Python objects.

    Args:
        path: The file.
        config: Settings; ``label`` and ``group`` name other arrays than y and groups.
        findings: Takes remarks and problems.
        labelled: Whether labels are needed.

    Raises:
        DataError: If the file can't be read or an array has another form.
    """
    _require_size(path)
    label, group = config.label or LABELS, config.group or GROUPS
    needed = (
        _INPUTS,
        *((label,) if labelled else ()),
        *((group,) if labelled and config.group else ()),
    )
    arrays = read_arrays(path, needed, (label, group))
    return examples_of_arrays(path, arrays, config, findings)


def examples_of_arrays(
    path: Path, arrays: Mapping[str, AnyArray], config: ReadingConfig, findings: Findings
) -> RawExamples:
    """Checks arrays by their names as `read_npz` does.

    Raises:
        DataError: If an array has another form.
    """
    label, group = config.label or LABELS, config.group or GROUPS
    x = arrays[_INPUTS]
    inputs, columns = _inputs(x, str(path), findings)
    for name in (label, group):
        if name in arrays:
            require_one_each(arrays[name], name, len(inputs), str(path))
    places = ExamplePlaces(
        files=(path.name,),
        file=np.zeros(len(x), np.int64),
        row=np.arange(len(x), dtype=np.int64),
    )
    written = arrays.get(label)
    groups = text_codes(arrays[group])[0] if group in arrays else None
    labels = None if written is None else _labels(written, label, config, findings, places)
    findings.require_none()
    return RawExamples(
        where=str(path),
        inputs=inputs,
        columns=columns,
        labels=labels,
        groups=groups,
        places=places,
    )


def _require_size(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            largest = max((entry.file_size for entry in archive.infolist()), default=0)
    except (OSError, zipfile.BadZipFile):
        # `read_arrays` says what is wrong.
        return
    if largest > 8 * MOST_VALUES:
        raise DataError(
            "an array is too large",
            where=str(path),
            expected=f"at most {8 * MOST_VALUES / 1e9:.1f} GB",
            got=f"{largest / 1e9:.1f} GB",
            remedy="Use fewer or smaller examples.",
        )


def _inputs(x: AnyArray, where: str, findings: Findings) -> tuple[AnyArray, tuple[Column, ...]]:
    """Images (n, C, H, W) in [0, 1], or vectors (n, F) with their columns."""
    require_inputs(x, where)
    if x.size > MOST_VALUES:
        raise DataError(
            "x is too large",
            where=where,
            expected=f"at most {MOST_VALUES:,} values",
            got=f"{x.size:,}",
            remedy="Use fewer or smaller examples.",
        )
    if x.ndim > 2 and x.dtype.kind in "iu":
        values: AnyArray = x
    else:
        values = x.astype(np.float64 if x.ndim == 2 else np.float32, copy=False)
        with np.errstate(invalid="ignore"):
            odd = ~(np.abs(values) <= _LARGEST)
        if x.ndim == 2:
            # A gap of a vector is filled in like one of a table.
            odd &= ~np.isnan(values)
        if odd.any():
            spots = np.argwhere(odd)[:SHOWN].tolist()
            findings.problem(
                "values of x are NaN, infinite or too large for float32",
                [f"{values[tuple(spot)]} (x{spot})" for spot in spots],
                count=int(odd.sum()),
                remedy="Remove those examples or fill the values in.",
            )
            findings.require_none()
    if x.ndim == 2:
        return values, numbered_columns(x.shape[1])
    if x.dtype == np.uint16:
        # A scale that hung on the brightest pixel would be another one in another file.
        if 0 < (brightest := int(x.max())) <= 255:
            raise DataError(
                "it is unclear whether x has pixels of 8 or of 16 bits",
                where=where,
                expected="values above 255 in uint16",
                got=f"uint16 of at most {brightest}",
                remedy="Save pixels of 8 bits as uint8; others divided by 65535, as floats.",
            )
        findings.remark("x has 16-bit pixels, which were divided by 65535.")
        return channels_first(values.astype(np.float32) / np.float32(65535), where), ()
    return channels_first(unit_range(values.astype(np.float32), x, where), where), ()


def _labels(
    written: AnyArray, key: str, config: ReadingConfig, findings: Findings, places: ExamplePlaces
) -> WrittenLabels:
    odd = not_whole(written)
    # NaN is an example without a label.
    odd = odd[~np.isnan(written[odd])] if odd.size else odd
    if odd.size:
        first = odd[:SHOWN]
        findings.problem(
            f"{key} is not whole",
            places.first(first.tolist(), written[first].tolist()),
            count=int(odd.size),
            expected="integers, whole numbers or strings",
            remedy=f"Save {key} as integers; a quantity to predict is no class.",
        )
        findings.require_none()
    codes, names = text_codes(written)
    return tidy_labels(codes, names, unlabelled=config.unlabelled, findings=findings)
