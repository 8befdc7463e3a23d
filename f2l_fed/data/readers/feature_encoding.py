"""The preprocessing of a site's inputs, which is kept with its network: features and scales."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.text_bytes import bytes_of
from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, FloatArray
from f2l_fed.data.readers.files import MOST_VALUES
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import label_key
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
        text_bytes: Length of a text that is the input, bytes; 0 for other columns.
    """

    name: str
    values: tuple[str, ...] = ()
    fill: float = 0.0
    indicator: bool = False
    mean: float = 0.0
    spread: float = 1.0
    unit: str = ""
    text_bytes: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        if self.text_bytes:
            return tuple(f"{self.name}, byte {place}" for place in range(self.text_bytes))
        if self.values:
            return tuple(f"{self.name} = {value}" for value in self.values)
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelScale:
    """The scaling of one channel of images: what is subtracted, and then divided by."""

    mean: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureEncoding:
    """The preprocessing of one kind of inputs.

    Args:
        columns: The columns of a table or vector, in order; none for images.
        channels: The channels of images; none where images stay in [0, 1].
        white: Value of white in images of floats; 0 where none have been seen.
    """

    columns: tuple[EncodedColumn, ...] = ()
    channels: tuple[ChannelScale, ...] = ()
    white: float = 0.0

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features in order."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def text_bytes(self) -> int:
        """The length of the texts that are the inputs, bytes; 0 for other inputs."""
        return sum(column.text_bytes for column in self.columns)

    @property
    def is_table(self) -> bool:
        """Whether the columns have names that count: not numbers from 1, nor that of texts."""
        named = any(column.name != str(place) for place, column in enumerate(self.columns, 1))
        return named and not self.text_bytes

    @property
    def text(self) -> str:
        """The encoding as JSON, which `of_text` reads; "" for none."""
        if self.channels or self.white:
            channels = [asdict(channel) for channel in self.channels]
            return json.dumps({"channels": channels, "white": self.white})
        return json.dumps([asdict(column) for column in self.columns]) if self.columns else ""

    @classmethod
    def of_text(cls, text: str, *, where: str) -> FeatureEncoding:
        """The encoding from JSON; raises DataError if it is damaged."""
        try:
            values = json.loads(text) if text else []
            if isinstance(values, dict):
                channels = tuple(
                    from_mapping(ChannelScale, value, where=where) for value in values["channels"]
                )
                return cls(channels=channels, white=float(values["white"]))
            columns = tuple(from_mapping(EncodedColumn, value, where=where) for value in values)
        except (ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
            raise DataError(
                "the encoding of the network's inputs can't be read",
                where=where,
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
        """Encodes examples: images from [0, 1], and columns as this encoding says.

        Args:
            raw: Examples of the same columns, in any order; further ones are left out.
            findings: Takes remarks, and a problem for a column that is missing.

        Returns:
            (n, C, H, W) or (n, F) float32.
        """
        if not self.columns or not raw.columns:
            return unit_images(raw.inputs) if raw.columns else self.encode_images(raw.inputs)
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
            if column.text_bytes:
                used, row = np.unique(numbers.astype(np.int64), return_inverse=True)
                texts = [raw.columns[place].values[number] for number in used.tolist()]
                block[:] = bytes_of(texts, column.text_bytes)[row]
            elif column.values:
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

    def encode_images(self, images: AnyArray) -> FloatArray:
        """Encodes images: (n, C, H, W) uint8, or float32 in [0, 1], to float32."""
        unit = unit_images(images)
        if not self.channels:
            return unit
        mean, spread = self._channel_scales()
        scaled: FloatArray = (unit - mean) / spread
        return scaled

    def pictures(self, x: FloatArray) -> FloatArray:
        """Encoded images (n, C, H, W) as they were in [0, 1]."""
        if not self.channels:
            return x
        mean, spread = self._channel_scales()
        unit: FloatArray = x * spread + mean
        return unit

    def _channel_scales(self) -> tuple[FloatArray, FloatArray]:
        """Mean and spread of the channels, each (C, 1, 1) float32."""
        scales = [(channel.mean, channel.spread) for channel in self.channels]
        both = np.array(scales, np.float32)
        return both[:, :1, None], both[:, 1:, None]


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
            f"{number_of(new.size, 'value')} of column {column.name!r} did not occur in training, "
            f"taken for none of its texts, the first at {raw.places[int(new[0])]}."
        )
