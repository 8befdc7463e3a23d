"""Scales that sites agree on: what figures come to, with wrong sites, gaps and noise."""

from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.data.readers.agreed_scales import (
    ScalingConfig,
    combined,
    noised_figures,
    own_figures,
    scales_digest,
    undecided,
)
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import Column, RawExamples
from f2l_fed.errors import ConfigError, DataError


def examples(seed: int, rows: int = 200, middle: float = 1e6) -> RawExamples:
    """A column of numbers with gaps far from 0, one of texts, and a constant one."""
    rng = np.random.default_rng(seed)
    length = rng.normal(middle, 10, rows)
    length[rng.random(rows) < 0.1] = np.nan
    x = np.stack([length, rng.integers(2, size=rows), np.full(rows, 7.0)], 1)
    columns = (Column(name="length"), Column(name="kind", values=("a", "b")), Column(name="same"))
    return RawExamples(where="x", inputs=x, columns=columns, labels=None)


def figures(seed: int, **kwargs: float) -> dict[str, tuple[float, ...]]:
    raw = examples(seed, **kwargs)
    return dict(own_figures(raw, np.arange(len(raw.inputs)), ReadingConfig()))


def test_they_are_those_of_all_rows_together():
    sites = [figures(seed, middle=1e6 + shift) for seed, shift in enumerate((-15, -5, 5, 15))]
    scales = combined(sites)
    assert set(scales) == {"length", "same"}
    assert scales["length"][0] == pytest.approx(1e6, abs=2)
    # Within and between the middle sites.
    assert scales["length"][1] == pytest.approx(np.hypot(10, 10), rel=0.35)
    # A constant says nothing about a spread.
    assert scales["same"] == (7.0, 1.0)


@pytest.mark.parametrize("wrong", [(1e30, 0.0), (-1e30, 1e30), (0.0, 0.0)])
@pytest.mark.parametrize("honest", [3, 4, 9])
def test_one_wrong_site_stays_within_the_others(wrong, honest):
    sites = [{"a": (float(n), 1.0)} for n in range(honest)]
    mean, spread = combined([*sites, {"a": wrong}])["a"]
    assert 0 <= mean <= honest - 1
    assert 1 <= spread <= np.hypot(1, honest)


def test_columns_of_few_sites_are_not_agreed_on():
    sites = [figures(seed) for seed in range(4)]
    sites[0]["more"] = (0.0, 1.0)
    assert "more" not in combined(sites)
    with pytest.raises(DataError, match="no columns of numbers in common"):
        combined([{f"column {n}": (0.0, 1.0)} for n in range(9)])
    with pytest.raises(DataError):
        combined(sites[:3])


def test_noised_figures_are_cut_to_the_range_and_near_the_plain_ones():
    raw, config = examples(1, rows=2000), ReadingConfig()
    rows = np.arange(2000)
    ranges = {"length": (999_900.0, 1_000_100.0), "same": (0.0, 10.0)}
    plain = noised_figures(raw, rows, config, ranges, np.zeros((2, 3)))
    own = own_figures(raw, rows, config)
    assert plain["length"] == pytest.approx(own["length"], rel=1e-3)
    raw.inputs[0, 0] = 1e30
    near = noised_figures(raw, rows, config, ranges, np.zeros((2, 3)))
    assert abs(near["length"][0] - plain["length"][0]) <= 200 / 1500
    # Whatever the noise, within the range and with a spread.
    for sign in (-1e9, 1e9):
        mean, spread = noised_figures(raw, rows, config, ranges, np.full((2, 3), sign))["length"]
        assert 999_900 <= mean <= 1_000_100
        assert 0 < spread <= 100


def test_the_preprocessing_takes_them_and_misses_none():
    raw, rows = examples(3), np.arange(200)
    config = ReadingConfig(scale="agreed", scales={"length": (1e6, 20.0), "elsewhere": (0, 1)})
    findings = Findings("x")
    encoding = fit_encoding(raw, rows, config, findings)
    (problem,) = findings.problems
    assert "agreed on no scale for columns" in str(problem)
    assert "'same'" in str(problem)
    assert (encoding.columns[0].mean, encoding.columns[0].spread) == (1e6, 20.0)
    private = fit_encoding(
        raw,
        rows,
        ReadingConfig(scale="agreed", scales={"length": (1e6, 20.0), "same": (0, 1)}),
        findings,
        private=True,
    )
    assert private.columns[0].fill == 1e6


def test_their_digest_is_that_of_the_numbers():
    scales = {"a": (1.0, 2.0), "b": (0.0, 1.0)}
    assert scales_digest(scales) == scales_digest({" b": (0, 1), "a": (1, 2)})
    assert scales_digest(scales) != scales_digest({**scales, "b": (0.0, 1.5)})


@pytest.mark.parametrize(
    "values",
    [
        {"sites": 3},
        {"sites": -1},
        {"ranges": {"a": (1.0, 1.0)}},
        {"ranges": {"a": (0.0, float("inf"))}},
        {"agreed": {"a": (0.0, 0.0)}},
        {"agreed": {"a": (float("nan"), 1.0)}},
        {"agreed": {"": (0.0, 1.0)}},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError):
        ScalingConfig(**values)


def test_columns_of_few_numbers_are_left_out():
    raw = examples(1)
    raw.inputs[3:, 0] = np.nan
    rows = np.arange(len(raw.inputs))
    present = int((~np.isnan(raw.inputs[:, 0])).sum())
    assert set(own_figures(raw, rows, ReadingConfig(), fewest=present)) == {"length", "same"}
    assert set(own_figures(raw, rows, ReadingConfig(), fewest=present + 1)) == {"same"}
    ranges, noise = {"length": (0.0, 2e6), "same": (0.0, 10.0)}, np.zeros((2, 3))
    noised = noised_figures(raw, rows, ReadingConfig(), ranges, noise, fewest=present + 0.5)
    assert set(noised) == {"same"}


def test_a_column_that_most_sites_have_but_too_few_is_waited_for():
    most = {"age": (1.0, 1.0), "bmi": (2.0, 1.0)}
    sites = [most, most, most, {"age": (1.0, 1.0), "b m i": (2.0, 1.0)}]
    assert undecided(sites) == ("bmi",)
    assert undecided([*sites, most]) == ()
    assert undecided([{"age": (1.0, 1.0)}] * 4) == ()
