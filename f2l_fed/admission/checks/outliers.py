"""Checks of figures against those of the other sites, in robust standard deviations.

Without enough other sites these find nothing, with two exceptions: an update against its own
site's probe, and, with three or more sites, an update or probe ten times as long as theirs, which
would spoil every later start. An outlier is never rejected for good: a site may be unusual and
honest, so its submission goes to quarantine, where a person can look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import exp, log

from torch import Tensor

from f2l_fed.admission.evidence import Comparisons
from f2l_fed.admission.features import HEAD, HEAD_CHANGE, LAYER, NORM, PROBE, SPREAD
from f2l_fed.admission.robust_statistics import Reference
from f2l_fed.admission.site_statistics import Ranking
from f2l_fed.admission.verdict import Finding

_COSINES = {HEAD: "head", HEAD_CHANGE: "head-change"}
# Layers differ more from site to site than lengths do: a bias alone may be one.
_WIDE = 1.5


def update_length(comparisons: Comparisons) -> Iterator[Finding]:
    """Finds updates much longer or shorter than the others'.

    All of a site's updates are seldom long by chance, a single one may be.
    """
    limits = comparisons.config
    if NORM not in comparisons.values:
        return
    lengths = comparisons.values[NORM].exp()
    refer = partial(Ranking.length_reference, name=NORM, floor=limits.floor)
    if found := comparisons.by_release(lengths, refer):
        deviations, reference = found
        high, median = float(deviations.max()), float(deviations.quantile(0.5))
        kept_out = high > limits.far or median > limits.deviations
        if kept_out or high > limits.clip:
            yield Finding(
                code="long",
                action="quarantine" if kept_out else "clip",
                figures={
                    "norm": float(lengths.max()),
                    "median": reference.median,
                    "max_allowed": reference.median + limits.clip * reference.spread,
                    "deviations": high,
                },
            )
    yield from _many_medians(comparisons, NORM, "long")
    refer = partial(Ranking.reference, name=NORM, floor=limits.floor)
    if found := comparisons.by_release(comparisons.values[NORM], refer):
        deviations, reference = found
        low = float(deviations.min())
        if -low > limits.deviations:
            figures = {"norm": float(lengths.min()), "median": exp(reference.median)}
            yield Finding(code="short", action="quarantine", figures={**figures, "deviations": low})


def layer_lengths(comparisons: Comparisons) -> Iterator[Finding]:
    """Finds layers that changed much more than the others'; too small a change does no harm."""
    limits = comparisons.config
    for name in [name for name in comparisons.values if name.startswith(LAYER)]:
        lengths = comparisons.values[name].exp()
        refer = partial(Ranking.length_reference, name=name, floor=_WIDE * limits.floor)
        found = comparisons.by_release(lengths, refer)
        if found is None:
            continue
        deviations, reference = found
        median, high = float(deviations.quantile(0.5)), float(deviations.max())
        if median > _WIDE * limits.deviations or high > _WIDE * limits.far:
            yield Finding(
                code="layer",
                action="quarantine",
                figures={
                    "norm": float(lengths.max()),
                    "median": reference.median,
                    "deviations": high,
                },
                about=name.removeprefix(LAYER),
            )


def probe_length(comparisons: Comparisons) -> Iterator[Finding]:
    """Finds probes much longer or shorter than the others'."""
    values, limits = comparisons.values[PROBE], comparisons.config
    refer = partial(Ranking.reference, name=PROBE, floor=limits.floor)
    if found := comparisons.by_release(values, refer):
        deviations, reference = found
        if figures := _beyond(values, deviations, limits.deviations, "norm", reference):
            yield Finding(code="probe-length", action="quarantine", figures=figures)
    yield from _many_medians(comparisons, PROBE, "probe-length")


def direction(comparisons: Comparisons) -> Iterator[Finding]:
    """Finds output layers, or changes of them, in another direction than the site's own probe."""
    limits = comparisons.config
    for name, code in _COSINES.items():
        if name not in comparisons.values:
            continue
        cosine, reference = float(comparisons.values[name].min()), comparisons.reference(name)
        known = reference.sites >= limits.minimum
        lowest = limits.along * max(reference.median, 0.0) if known else limits.against
        if cosine < lowest:
            figures = {"cosine": cosine, "min_allowed": lowest}
            yield Finding(code=code, action="quarantine", figures=figures)


def output_spread(comparisons: Comparisons) -> Iterator[Finding]:
    """Finds outputs that vary over synthetic inputs much more or less than those of others."""
    reference = comparisons.reference(SPREAD, wide=_WIDE)
    if SPREAD not in comparisons.values or reference.sites < comparisons.config.minimum:
        return
    values = comparisons.values[SPREAD]
    deviations, limit = reference.deviations(values), _WIDE * comparisons.config.deviations
    if figures := _beyond(values, deviations, limit, "spread", reference):
        yield Finding(code="outputs", action="quarantine", figures=figures)


WEIGHT_CHECKS = (update_length, layer_lengths, probe_length, direction)
"""The checks that cost no forward pass."""


def _many_medians(comparisons: Comparisons, name: str, code: str) -> Iterator[Finding]:
    """Finds lengths many times the median where the sites are too few for a deviation."""
    if found := comparisons.among_few(name):
        ratios, reference = found
        if float(ratios.max()) > log(comparisons.config.times):
            median = exp(reference.median)
            figures = {
                "norm": exp(float(comparisons.values[name].max())),
                "median": median,
                "max_allowed": comparisons.config.times * median,
            }
            yield Finding(code=code, action="quarantine", figures=figures)


def _beyond(
    values: Tensor, deviations: Tensor, limit: float, name: str, reference: Reference
) -> dict[str, float]:
    """Figures of the logarithm with the largest deviation; none within the limit."""
    worst = int(deviations.abs().argmax())
    if float(deviations[worst].abs()) <= limit:
        return {}
    figures = {name: exp(float(values[worst])), "median": exp(reference.median)}
    return {**figures, "deviations": float(deviations[worst])}
