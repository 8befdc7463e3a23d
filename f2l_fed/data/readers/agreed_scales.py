"""The scales of columns of numbers that the sites of a federation agree on.

Each site tells mean and standard deviation of its own columns, and everybody takes what the middle
ones of them come to. With a privacy budget they are noised sums over a range known beforehand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from f2l_fed.core.validation import require
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.data.readers.agreed_settings import LONGEST_FEATURE, MOST_FEATURES
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.errors import DataError

FEWEST_SITES = 4
"""Smallest number of sites whose figures are combined, so that no site's own is the result."""

Scales = Mapping[str, tuple[float, ...]]
"""Mean and spread, or lower and upper bound, of columns of numbers, by column."""

LARGEST = 1e30
"""Largest number that a mean, a spread or a bound may be."""

_LEAST_SHARE = 1e-3
"""Smallest spread of noised figures, as a share of half the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingConfig:
    """The scales of columns of numbers, the same at every site.

    Args:
        sites: Number of sites whose figures are combined into scales for all, before the first
            round; 0: each site fits its own on its training rows.
        ranges: Lowest and highest value of columns as they are known beforehand, by column; a site
            with a privacy budget tells noised figures within them, and none without.
        agreed: Mean and spread of columns that are known already, by column; then no site is asked.

    Raises:
        ConfigError: If a value is out of range.
    """

    sites: int = 0
    ranges: Scales = field(default_factory=dict, hash=False)
    agreed: Scales = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        some = self.sites == 0 or self.sites >= FEWEST_SITES
        require(some, self, "sites", f"0, or {FEWEST_SITES} or more")
        ordered = all(
            len(pair) == 2 and -LARGEST <= pair[0] < pair[1] <= LARGEST
            for pair in self.ranges.values()
        )
        require(ordered, self, "ranges", "a lower and a higher value for each column")
        require(are_scales(self.agreed), self, "agreed", "a mean and a spread above 0 for each")


def are_scales(scales: Scales, *, constant: bool = False) -> bool:
    """Whether these are means and spreads of columns, finite and no more than a site may name.

    Args:
        scales: By column.
        constant: Whether spreads may be 0.
    """
    return len(scales) <= MOST_FEATURES and all(
        0 < len(name) <= LONGEST_FEATURE
        and len(pair) == 2
        and abs(pair[0]) <= LARGEST
        and (constant or pair[1] > 0)
        and 0 <= pair[1] <= LARGEST
        for name, pair in scales.items()
    )


def scales_text(scales: Scales) -> str:
    """Scales as the JSON that files hold."""
    plain = {name: list(pair) for name, pair in scales.items()}
    return json.dumps(plain, ensure_ascii=False) + "\n"


def scales_digest(scales: Scales) -> str:
    """SHA-256 of scales, whatever their order; "" for none.

    >>> one = {"a": (1.0, 2.0), "b": (0.0, 1.0)}
    >>> scales_digest(one) == scales_digest(dict(reversed(one.items()))), scales_digest({})
    (True, '')
    """
    if not scales:
        return ""
    rows = sorted([tidy_name(name), *map(float, pair)] for name, pair in scales.items())
    return sha256(json.dumps(rows).encode()).hexdigest()


def own_figures(
    raw: RawExamples, rows: IntArray, config: ReadingConfig, *, fewest: int = 1
) -> Scales:
    """Mean and standard deviation of each column of numbers over some rows.

    Args:
        raw: The examples.
        rows: (m,) int64, those to learn from.
        config: Settings; columns under ``categories`` hold no numbers.
        fewest: Numbers that a column has at least; those of fewer are left out, since the mean of
            one is that number.
    """
    figures = {}
    for name, values in _numbers(raw, rows, config).items():
        if (present := values[~np.isnan(values)]).size >= fewest:
            figures[name] = (float(present.mean()), float(present.std()))
    return figures


def sums_length(columns: int) -> float:
    """Largest length of what one example adds to the sums of columns: count, value and square."""
    return math.sqrt(3 * columns)


def noised_figures(
    raw: RawExamples,
    rows: IntArray,
    config: ReadingConfig,
    ranges: Scales,
    noise: AnyArray,
    *,
    fewest: float = -math.inf,
) -> Scales:
    """The figures from noised sums over values cut to their ranges.

    Args:
        raw, rows, config: As of `own_figures`.
        ranges: Of every column of numbers.
        noise: (F, 3) float64, added to each column's count, sum and sum of squares, in halves of
            its range.
        fewest: Noised count of a column below which it is left out: the rest would be noise.
    """
    figures = {}
    bounds = {tidy_name(name): pair for name, pair in ranges.items()}
    for values, (name, column) in zip(noise, _numbers(raw, rows, config).items(), strict=True):
        low, high = bounds[name]
        middle, half = (low + high) / 2, (high - low) / 2
        unit = np.clip((column[~np.isnan(column)] - middle) / half, -1, 1)
        count, total, squares = np.array([unit.size, unit.sum(), (unit**2).sum()]) + values
        if count < fewest:
            continue
        mean = float(np.clip(total / max(count, 1), -1, 1))
        variance = float(np.clip(squares / max(count, 1) - mean**2, _LEAST_SHARE**2, 1))
        figures[name] = (middle + half * mean, half * math.sqrt(variance))
    return figures


def combined(figures: Sequence[Scales]) -> Scales:
    """The scales that the figures of several sites come to.

    For each column that enough sites name, the mean of the middle half of their means, or of all
    but the lowest and the highest of few, and the same of their mean square distances from that:
    one wrong site moves neither beyond what the others say.

    Args:
        figures: Of each site.

    Raises:
        DataError: If there are too few, or they have no column in common.

    >>> combined([{"a": (1.0, 1.0)}, {"a": (2.0, 1.0)}, {"a": (3.0, 1.0)}, {"a": (1e9, 1e9)}])
    {'a': (2.5, 1.5)}
    """
    names = sorted({name for one in figures for name in one})
    found = {}
    for name in names:
        told = np.array([one[name] for one in figures if name in one])
        if len(told) < FEWEST_SITES:
            continue
        mean = _middle(told[:, 0])
        spread = math.sqrt(_middle(told[:, 1] ** 2 + (told[:, 0] - mean) ** 2))
        # As of a site's own: 1 for numbers that hardly vary, beside how large they are.
        found[name] = (mean, spread if spread > 1e-12 * abs(mean) and spread > 0 else 1.0)
    if not found:
        raise DataError(
            "the sites have no columns of numbers in common whose scales they could agree on",
            expected=f"{FEWEST_SITES} sites with the same column",
            got=f"{len(figures)} sites with {len(names)} different names",
            remedy="Leave scaling.sites out, or settle the columns with all sites.",
        )
    return found


def undecided(figures: Sequence[Scales]) -> tuple[str, ...]:
    """The columns that at least half of some sites name, but too few to be combined."""
    names = sorted({name for one in figures for name in one})
    counts = {name: sum(name in one for one in figures) for name in names}
    return tuple(name for name in names if len(figures) <= 2 * counts[name] < 2 * FEWEST_SITES)


def _middle(values: AnyArray) -> float:
    cut = max(1, len(values) // 4)
    return float(np.sort(values)[cut:-cut].mean())


def number_columns(raw: RawExamples, config: ReadingConfig) -> tuple[str, ...]:
    """The names of the columns of numbers, in order; none of images."""
    texts = {tidy_name(name) for name in config.categories}
    return tuple(one.name for one in raw.columns if not one.values and one.name not in texts)


def _numbers(raw: RawExamples, rows: IntArray, config: ReadingConfig) -> dict[str, AnyArray]:
    """The values of each column of numbers over some rows, float64."""
    places = {column.name: place for place, column in enumerate(raw.columns)}
    return {
        name: raw.inputs[rows, places[name]].astype(np.float64)
        for name in number_columns(raw, config)
    }
