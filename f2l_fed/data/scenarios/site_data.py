"""The examples of one simulated site, prepared from its rows as a real site prepares its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from f2l_fed.data.array_checks import AnyArray, FloatArray, IntArray
from f2l_fed.data.readers.agreed_scales import ScalingConfig, combined, own_figures
from f2l_fed.data.readers.config import AGREED, ReadingConfig
from f2l_fed.data.readers.division import kept_aside
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import SitePlan
from f2l_fed.errors import DataError

__all__ = ["SiteData", "SiteFile", "agreed_reading", "prepare_site", "settled_reading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteFile:
    """Examples as a site's file holds them, before any preprocessing.

    Args:
        x: (n, C, H, W) float32 images in [0, 1]; or (n, F) numbers of columns, NaN for gaps, and
            for texts their places in the column's values.
        y: (n,) int64, the site's own labels.
        groups: (n,) int64, examples of one number stay on one side of the site's split; or None.
    """

    x: AnyArray
    y: IntArray
    groups: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteData:
    """The examples of one site.

    Args:
        name: ``site-000`` and on; ``seen-000`` and ``unseen-000`` where held out.
        x_train: (n, ...) float32, to learn from.
        y_train: (n,) int64, the site's own labels.
        x_test: (m, ...) float32, to measure on: of a training site those that it measures on
            itself, of a held-out site further ones.
        y_test: (m,) int64.
        classes: Pool class of each of the site's labels.
        encoding: The preprocessing, fitted on the examples to learn from.
        own: All that the site has to learn from, including what it keeps aside.
        further: Examples that it has only to measure on; maybe none.
    """

    name: str
    x_train: FloatArray
    y_train: IntArray
    x_test: FloatArray
    y_test: IntArray
    classes: tuple[int, ...]
    encoding: FeatureEncoding = field(default_factory=FeatureEncoding)
    own: SiteFile
    further: SiteFile


def settled_reading(pool: Pool, reading: ReadingConfig) -> ReadingConfig:
    """The settings of every site's data, with all that has to be the same at each: columns, texts,
    and the columns with a feature that tells where values are missing.

    Args:
        pool: All examples.
        reading: Settings with which they were read.
    """
    columns = pool.columns
    free = any(column.free for column in columns)
    texts = {column.name: column.values for column in columns if column.values and not free}
    listed = {tidy_name(name): values for name, values in reading.categories.items()}
    categories = {**texts, **listed}
    indicators = reading.indicators
    if columns and not free and reading.gaps == "indicator" and not indicators:
        gaps = np.flatnonzero(np.isnan(pool.x).any(axis=0)).tolist()
        names = [columns[place].name for place in gaps]
        indicators = tuple(name for name in names if name not in categories)
    return ReadingConfig(
        gaps=reading.gaps,
        scale=reading.scale,
        scales=reading.scales,
        image_scale=reading.image_scale,
        columns=() if free else tuple(column.name for column in columns),
        text=columns[0].name if free else "",
        text_bytes=reading.text_bytes,
        categories=categories,
        indicators=indicators,
    )


def agreed_reading(
    plans: Sequence[SitePlan],
    pool: Pool,
    reading: ReadingConfig,
    config: SplitConfig,
    scaling: ScalingConfig,
) -> ReadingConfig:
    """The settings of every site's data with the scales that the sites agree on, as real ones do.

    Args:
        plans: The training sites; the first ones of them tell their figures.
        pool: All examples.
        reading: Settings, from `settled_reading`.
        config: Settings of the split.
        scaling: How many sites tell theirs, or the scales.

    Raises:
        DataError: If there are too few sites, or no columns of numbers.
    """
    if scaling.agreed:
        return replace(reading, scale=AGREED, scales=scaling.agreed)
    figures = []
    for plan in plans:
        if len(plan.train) < config.minimum_examples:
            continue
        raw, _, train, _ = _divided(plan, pool, config, Findings(f"site {plan.name}"), trains=True)
        if len(train) >= config.minimum_examples:
            figures.append(own_figures(raw, train, reading))
        if len(figures) == scaling.sites:
            return replace(reading, scale=AGREED, scales=combined(figures))
    raise DataError(
        "fewer training sites than those that agree on scales",
        where="scaling.sites",
        expected=f"at most {len(figures)}",
        got=str(scaling.sites),
    )


def prepare_site(
    plan: SitePlan, pool: Pool, reading: ReadingConfig, config: SplitConfig, *, trains: bool
) -> SiteData:
    """Prepares the examples of one site.

    Args:
        plan: Its rows.
        pool: All examples.
        reading: Settings, from `settled_reading`.
        config: Settings of the split.
        trains: Whether it is a training site, which measures on what it keeps aside.

    Raises:
        DataError: If it can keep no example aside, or its examples can't be encoded.
    """
    findings = Findings(f"site {plan.name}")
    raw, y, train, test = _divided(plan, pool, config, findings, trains=trains)
    encoding = fit_encoding(raw, train, reading, findings)
    encoded = encoding.encode(raw, findings)
    findings.require_none()
    cut, x, groups = len(plan.train), raw.inputs, raw.groups

    def file(rows: slice) -> SiteFile:
        return SiteFile(x=x[rows], y=y[rows], groups=None if groups is None else groups[rows])

    return SiteData(
        name=plan.name,
        x_train=encoded[train],
        y_train=y[train],
        x_test=encoded[test],
        y_test=y[test],
        classes=plan.classes,
        encoding=encoding,
        own=file(slice(cut)),
        further=file(slice(cut, None)),
    )


def _divided(
    plan: SitePlan, pool: Pool, config: SplitConfig, findings: Findings, *, trains: bool
) -> tuple[RawExamples, IntArray, IntArray, IntArray]:
    """A site's examples and own labels, and its rows to learn from and to measure on."""
    # A site that divides its examples itself has them in the order of the data.
    first = np.sort(plan.train) if config.validation_fraction else plan.train
    rows = np.concatenate([first, plan.test])
    x = pool.x[rows] if plan.camera is None else plan.camera(pool.x[rows])
    own_label = np.full(pool.classes, -1)
    own_label[list(plan.classes)] = np.arange(len(plan.classes))
    y = own_label[pool.y[rows]]
    groups = None if pool.together is None else pool.together[rows]
    raw = RawExamples(where=plan.name, inputs=x, columns=pool.columns, labels=None, groups=groups)
    own, test = np.arange(len(plan.train)), np.arange(len(plan.train), len(rows))
    train = own
    if config.validation_fraction:
        aside = kept_aside(
            raw.take(own), y[own], config.validation_fraction, findings, site=plan.name
        )
        train = np.setdiff1d(own, aside)
        if trains:
            test = own[aside]
    return raw, y, train, test
