"""The fit of a site's preprocessing on its training rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.agreed_scales import number_columns
from f2l_fed.data.readers.config import AGREED, STANDARD, ReadingConfig
from f2l_fed.data.readers.feature_encoding import (
    ChannelScale,
    EncodedColumn,
    FeatureEncoding,
    unit_images,
)
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.raw_examples import RawExamples

_ROUNDINGS = 16
"""Number of roundings of the largest value up to which a spread says nothing."""

MOST_LISTED = 10
"""Number of texts that a remark lists."""


def fit_encoding(
    raw: RawExamples,
    rows: IntArray,
    config: ReadingConfig,
    findings: Findings,
    *,
    private: bool = False,
) -> FeatureEncoding:
    """Fits the preprocessing of a site.

    Which features there are follows from the settings, or else from all rows, so that it does not
    hang on a split; numbers follow from the rows to learn from alone.

    Args:
        raw: The examples.
        rows: (m,) int64, those to learn from.
        config: Settings.
        findings: Takes remarks.
        private: Whether nothing may be fitted, since it would carry one example into the inputs of
            all others, past the noise of a privacy budget: nothing is scaled but as agreed, gaps
            become the agreed mean or 0, and texts that the settings do not list are a problem.
    """
    if not raw.columns:
        return _of_images(raw, rows, private=private, asked=config.image_scale == "standard")
    if private and config.scale == STANDARD:
        findings.remark(
            "The numbers are not scaled, since there is a privacy budget, other than by scales "
            "under [data]."
        )
    listed = {tidy_name(name): values for name, values in config.categories.items()}
    told = {tidy_name(name) for name in config.indicators}
    agreed = {tidy_name(name): pair for name, pair in config.scales.items()}
    _require_numbers("indicators", told, raw, listed, findings)
    if config.scale == AGREED:
        # All sites have the same ones, maybe more than this one has columns.
        lacking = [name for name in number_columns(raw, config) if name not in agreed]
        _require_agreed(lacking, findings)
    else:
        _require_numbers("scales", agreed, raw, listed, findings)
    columns, gaps = [], []
    for place, column in enumerate(raw.columns):
        if column.free:
            columns.append(EncodedColumn(name=column.name, text_bytes=config.text_bytes))
            continue
        if column.values or listed.get(column.name):
            if private and column.name not in listed:
                findings.problem(
                    "a privacy budget needs the values of text columns in the settings",
                    [repr(column.name)],
                    remedy="List them under [data.categories], or add the column to ignore.",
                )
            named = listed.get(column.name, column.values)
            columns.append(EncodedColumn(name=column.name, values=tuple(named)))
            continue
        empty = np.isnan(raw.inputs[:, place])
        present = raw.inputs[rows, place][~empty[rows]]
        some = bool(empty.any())
        if some:
            gaps.append(f"{column.name!r} ({int(empty.sum())})")
        mean, spread = agreed.get(column.name, (0.0, 1.0))
        fits = config.scale == STANDARD and not private
        if fits and len(present) and column.name not in agreed:
            mean, spread = _scale(present)
        # Without a look at the data, the agreed mean, or 0.
        fill = float(np.median(present)) if len(present) and not private else mean
        columns.append(
            EncodedColumn(
                name=column.name,
                mean=mean,
                spread=spread,
                fill=fill,
                unit=column.unit,
                indicator=column.name in told
                if told or private
                else some and config.gaps == "indicator",
            )
        )
    encoding = FeatureEncoding(columns=tuple(columns))
    if private and gaps:
        findings.remark(
            f"Missing values of {number_of(len(gaps), 'column')} become 0, or the agreed mean: "
            "nothing is fitted to the data where there is a privacy budget."
        )
        gaps = []
    _remark(encoding, gaps, config, findings)
    return encoding


def _scale(values: AnyArray) -> tuple[float, float]:
    """Mean and standard deviation; 1 for that of numbers that never vary, which say nothing.

    A sum of equal numbers leaves a spread of some roundings.
    """
    mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    rounding = _ROUNDINGS * float(np.finfo(values.dtype).eps)
    constant = spread <= rounding * float(np.abs(values).max())
    return float(mean), 1.0 if constant else float(spread)


def _of_images(raw: RawExamples, rows: IntArray, *, private: bool, asked: bool) -> FeatureEncoding:
    """Scales of the channels over the images to learn from; none unless asked for."""
    if not asked or private or not len(rows):
        return FeatureEncoding(white=raw.white)
    images = unit_images(raw.inputs[rows])
    scales = [_scale(images[:, channel]) for channel in range(images.shape[1])]
    return FeatureEncoding(
        channels=tuple(ChannelScale(mean=mean, spread=spread) for mean, spread in scales),
        white=raw.white,
    )


def _require_agreed(lacking: Sequence[str], findings: Findings) -> None:
    """Takes columns without an agreed scale as a problem."""
    if lacking:
        findings.problem(
            "the federation has agreed on no scale for columns",
            map(repr, lacking[:SHOWN]),
            count=len(lacking),
            remedy="Add them to ignore, or correct their names.",
        )


def _require_numbers(
    key: str,
    told: Collection[str],
    raw: RawExamples,
    listed: Mapping[str, tuple[str, ...]],
    findings: Findings,
) -> None:
    """Takes names under a key that are of no column of numbers as a problem."""
    numbers = {column.name for column in raw.columns if not column.values} - listed.keys()
    if odd := sorted(set(told) - numbers):
        findings.problem(
            f"{key} under [data] name columns that hold no numbers",
            map(repr, odd[:SHOWN]),
            count=len(odd),
            remedy="Correct the names.",
        )


def _remark(
    encoding: FeatureEncoding, gaps: Sequence[str], config: ReadingConfig, findings: Findings
) -> None:
    if gaps:
        told, agreed = config.gaps == "indicator", bool(config.indicators)
        more = " and a feature for each tells where" if told and not agreed else ""
        settle = " All sites need the same features: settle gaps under [data] with the others."
        findings.remark(
            f"Missing values of {number_of(len(gaps), 'column')} get the training rows' "
            f"median{more}: {', '.join(gaps[:SHOWN])}{' and others' if len(gaps) > SHOWN else ''}."
            f"{settle if told and not agreed else ''}"
        )
    for column in encoding.columns:
        if column.values and column.name not in map(tidy_name, config.categories):
            listed = ", ".join(f'"{value}"' for value in column.values[:MOST_LISTED])
            findings.remark(
                f"Column {column.name!r} has texts and becomes "
                f"{number_of(len(column.values), 'feature')}: [{listed}]. All sites need "
                f"the same ones: settle them under [data.categories]."
            )
