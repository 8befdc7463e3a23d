"""The encoding of a table's columns as features, fitted on training rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.data.array_checks import AnyArray, FloatArray, IntArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.files import MOST_VALUES
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import label_key, tidy_name
from f2l_fed.data.readers.raw_examples import Column, RawExamples
from f2l_fed.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedColumn:
    """The features that one column becomes.

    Args:
        name: Of the column.
        values: Texts with a feature each, 1 where the row has it; empty for a column of numbers.
        fill: Number for a gap.
        indicator: Whether a further feature is 1 at gaps.
        mean: What is subtracted from the numbers.
        spread: What they are divided by after that.
        unit: What was removed behind or before the numbers, such as "mm".
    """

    name: str
    values: tuple[str, ...] = ()
    fill: float = 0.0
    indicator: bool = False
    mean: float = 0.0
    spread: float = 1.0
    unit: str = ""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        if self.values:
            return tuple(f"{self.name} = {value}" for value in self.values)
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureEncoding:
    """The encoding of all columns of a table, in order; without any for images."""

    columns: tuple[EncodedColumn, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features in order."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def scales(self) -> tuple[list[float], list[float]]:
        """Mean and spread of every feature; 0 and 1 of those that stay as they are."""
        means, spreads = [], []
        for column in self.columns:
            others = len(column.features) - 1
            means += [column.mean] + [0.0] * others
            spreads += [column.spread] + [1.0] * others
        return means, spreads

    @property
    def text(self) -> str:
        """The encoding as JSON, which `of_text` reads; "" for none."""
        return json.dumps([asdict(column) for column in self.columns]) if self.columns else ""

    @classmethod
    def of_text(cls, text: str, *, where: str) -> FeatureEncoding:
        """The encoding from JSON; raises DataError if it is damaged."""
        try:
            values = json.loads(text) if text else []
            columns = tuple(from_mapping(EncodedColumn, value, where=where) for value in values)
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise DataError(
                "the encoding of the network's inputs can't be read",
                where=where,
                got=type(error).__name__,
                remedy="Make the network again: f2l-site generate.",
            ) from error
        return cls(columns=columns)

    def suits(self, names: Collection[str], findings: Findings) -> bool:
        """Whether a table of columns with these names has all that are encoded; else a problem."""
        missing = [column.name for column in self.columns if column.name not in names]
        if missing:
            findings.problem(
                "columns are missing",
                map(repr, missing[:SHOWN]),
                count=len(missing),
                expected="all columns of the training examples",
                remedy="Add them; they may be empty.",
            )
        return not missing

    def encode(self, raw: RawExamples, findings: Findings) -> FloatArray:
        """Encodes examples: images in [0, 1], and columns as this encoding says.

        Args:
            raw: Examples of the same columns, in any order; further ones are left out.
            findings: Takes remarks, and a problem for a column that is missing.

        Returns:
            (n, C, H, W) or (n, F) float32.
        """
        if not self.columns:
            return unit_images(raw.inputs)
        given = {column.name: place for place, column in enumerate(raw.columns)}
        if not self.suits(given, findings):
            return np.zeros((len(raw), len(self.features)), np.float32)
        if (values := len(raw) * len(self.features)) > MOST_VALUES:
            raise DataError(
                "the encoded table is too large",
                where=raw.where,
                expected=f"at most {MOST_VALUES:,} values",
                got=f"{values:,}",
                remedy="Leave out rows or columns, above all those of texts.",
            )
        encoded = np.empty((len(raw), len(self.features)), np.float32)
        at = 0
        for column in self.columns:
            place = given[column.name]
            numbers = raw.inputs[:, place]
            width = len(column.features)
            block = encoded[:, at : at + width]
            if column.values:
                _one_hot(block, numbers, raw.columns[place], column, raw, findings)
            elif raw.columns[place].values:
                found = raw.columns[place].values
                findings.problem(
                    f"values in column {column.name!r} are texts, at training they were numbers",
                    map(repr, found[:SHOWN]),
                    remedy="Correct the column.",
                )
            else:
                _compare_units(raw.columns[place], column, numbers, findings)
                gaps = np.isnan(numbers)
                block[:, 0] = (np.where(gaps, column.fill, numbers) - column.mean) / column.spread
                if column.indicator:
                    block[:, 1] = gaps
            at += width
        return encoded


def fit_encoding(
    raw: RawExamples,
    rows: IntArray,
    config: ReadingConfig,
    findings: Findings,
    *,
    scaled: bool = False,
    private: bool = False,
) -> FeatureEncoding:
    """Fits the encoding of a table's columns.

    Which features there are follows from all rows, so that it does not hang on a split; the
    numbers that are filled in follow from the rows to learn from alone.

    Args:
        raw: The examples; images need no encoding.
        rows: (m,) int64, those to learn from.
        config: Settings.
        findings: Takes remarks.
        scaled: Whether numbers get mean 0 and spread 1 over the rows to learn from.
        private: Whether nothing may be fitted, since it would carry one example into the inputs of
            all others, past the noise of a privacy budget: gaps become 0, and texts that the
            settings do not list are a problem.
    """
    if not raw.columns:
        return FeatureEncoding()
    listed = {tidy_name(name): values for name, values in config.categories.items()}
    columns, gaps = [], []
    for place, column in enumerate(raw.columns):
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
        mean, spread = 0.0, 1.0
        if scaled and not private and len(present):
            mean, spread = _scale(present)
        columns.append(
            EncodedColumn(
                name=column.name,
                mean=mean,
                spread=spread,
                fill=float(np.median(present)) if len(present) and not private else 0.0,
                unit=column.unit,
                indicator=some and config.gaps == "indicator" and not private,
            )
        )
    encoding = FeatureEncoding(columns=tuple(columns))
    if private and gaps:
        findings.remark(
            f"Missing values of {len(gaps)} columns become 0: nothing is fitted to the data where "
            "there is a privacy budget."
        )
        gaps = []
    _remark(encoding, gaps, config, findings)
    return encoding


def _scale(values: AnyArray) -> tuple[float, float]:
    """Mean and standard deviation; 1 for that of numbers that never vary, which say nothing."""
    mean, spread = values.mean(), values.std()
    return float(mean), 1.0 if is_constant(values, spread) else float(spread)


def is_constant(values: AnyArray, spread: AnyArray) -> AnyArray:
    """Whether numbers vary by no more than rounding, for which a sum leaves a spread above 0.

    Args:
        values: (n, ...) floats, n at least 1.
        spread: (...), their standard deviation.

    Returns:
        (...) bool.
    """
    rounding = ROUNDING * np.finfo(values.dtype).eps
    constant: AnyArray = spread <= rounding * np.abs(values).max(axis=0)
    return constant


ROUNDING = 16
"""Number of roundings of the largest value up to which a spread says nothing."""


def unit_images(images: AnyArray) -> FloatArray:
    """Images as float32 in [0, 1]."""
    if images.dtype == np.uint8:
        scaled: FloatArray = images.astype(np.float32)
        scaled /= np.float32(255)
        return scaled
    return images.astype(np.float32, copy=False)


def _compare_units(
    found: Column, column: EncodedColumn, numbers: AnyArray, findings: Findings
) -> None:
    if found.unit == column.unit or np.isnan(numbers).all():
        return
    if found.unit:
        findings.problem(
            f"numbers in column {column.name!r} have another unit than at training",
            [repr(found.unit)],
            expected=repr(column.unit) if column.unit else "none",
            remedy="Convert them.",
        )
    else:
        findings.remark(f"The numbers of column {column.name!r} are taken for {column.unit!r}.")


def _one_hot(
    block: FloatArray,
    values: AnyArray,
    written: Column,
    column: EncodedColumn,
    raw: RawExamples,
    findings: Findings,
) -> None:
    block[:] = 0
    known = {label_key(value): place for place, value in enumerate(column.values)}
    # Numbers under a column of texts are no texts that training has seen.
    texts = written.values or ()
    place = np.array([known.get(label_key(text), -1) for text in texts] + [-1])
    gaps = np.isnan(values)
    codes = np.where(gaps | (not texts), len(texts), values).astype(np.int64)
    found = place[codes]
    block[np.flatnonzero(found >= 0), found[found >= 0]] = 1
    new = np.flatnonzero((found < 0) & ~gaps)
    if new.size:
        findings.remark(
            f"{new.size} values of column {column.name!r} did not occur in training and count as "
            f"none, the first at {raw.places[int(new[0])]}."
        )


def _remark(
    encoding: FeatureEncoding, gaps: Sequence[str], config: ReadingConfig, findings: Findings
) -> None:
    if gaps:
        more = " and a feature for each tells where" if config.gaps == "indicator" else ""
        findings.remark(
            f"Missing values of {len(gaps)} columns get the training rows' median{more}: "
            f"{', '.join(gaps[:SHOWN])}{' and others' if len(gaps) > SHOWN else ''}. All sites "
            "need the same features: settle gaps under [data] with the others."
        )
    for column in encoding.columns:
        if column.values and column.name not in map(tidy_name, config.categories):
            listed = ", ".join(f'"{value}"' for value in column.values[:MOST_LISTED])
            findings.remark(
                f"Column {column.name!r} has texts and becomes {len(column.values)} features: "
                f"[{listed}]. All sites need the same ones: settle them under [data.categories]."
            )


MOST_LISTED = 10
"""Number of texts that a remark lists."""
