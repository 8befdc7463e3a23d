"""Checks of figures against those of the other sites, in robust standard deviations.

Without enough other sites these say nothing; only an update that goes against its own site's probe
is kept out even then, and with three or more an update or probe ten times as long as theirs, which
would spoil every later start. What is merely unlike others is never rejected for good: a site may
be unusual and honest, so it is put in quarantine, where a person can look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import exp, log

from torch import Tensor

from f2l_fed.admission.evidence import Comparisons
from f2l_fed.admission.features import HEAD, HEAD_CHANGE, LAYER, NORM, PROBE, SPREAD
from f2l_fed.admission.robust_statistics import Reference, SiteStatistics
from f2l_fed.admission.verdict import Finding

_COSINES = {HEAD: "head", HEAD_CHANGE: "head-change"}
# Layers differ more from site to site than lengths do: a bias alone may be one.
_WIDE = 1.5


def norm(case: Comparisons) -> Iterator[Finding]:
    """Updates much longer or shorter than the others'.

    All of a site's updates are seldom long by chance, a single one may be.
    """
    limits = case.config
    if NORM not in case.values:
        return
    lengths = case.values[NORM].exp()
    usual = partial(SiteStatistics.usual_length, name=NORM, floor=limits.floor)
    if found := case.by_release(lengths, usual):
        away, others = found
        high, usually = float(away.max()), float(away.quantile(0.5))
        kept_out = high > limits.far or usually > limits.deviations
        if kept_out or high > limits.clip:
            yield Finding(
                code="long",
                action="quarantine" if kept_out else "clip",
                figures={
                    "norm": float(lengths.max()),
                    "usual": others.centre,
                    "most": others.centre + limits.clip * others.spread,
                    "deviations": high,
                },
            )
    yield from _many_times(case, NORM, "long")
    usual = partial(SiteStatistics.usual, name=NORM, floor=limits.floor)
    if found := case.by_release(case.values[NORM], usual):
        low = float(found[0].min())
        if -low > limits.deviations:
            figures = {"norm": float(lengths.min()), "usual": exp(found[1].centre)}
            figures["deviations"] = low
            yield Finding(code="short", action="quarantine", figures=figures)


def layers(case: Comparisons) -> Iterator[Finding]:
    """A layer that changed much more than the others'; little change of one is no harm."""
    limits = case.config
    for name in [name for name in case.values if name.startswith(LAYER)]:
        lengths = case.values[name].exp()
        usual = partial(SiteStatistics.usual_length, name=name, floor=_WIDE * limits.floor)
        found = case.by_release(lengths, usual)
        if found is None:
            continue
        away, others = found
        usually, high = float(away.quantile(0.5)), float(away.max())
        if usually > _WIDE * limits.deviations or high > _WIDE * limits.far:
            figures = {"norm": float(lengths.max()), "usual": others.centre, "deviations": high}
            yield Finding(
                code="layer",
                action="quarantine",
                figures=figures,
                about=name.removeprefix(LAYER),
            )


def probe(case: Comparisons) -> Iterator[Finding]:
    """A probe much longer or shorter than the others'."""
    values, limits = case.values[PROBE], case.config
    if found := case.by_release(
        values, partial(SiteStatistics.usual, name=PROBE, floor=limits.floor)
    ):
        away, others = found
        if figures := _beyond(values, away, limits.deviations, "norm", others):
            yield Finding(code="probe-length", action="quarantine", figures=figures)
    yield from _many_times(case, PROBE, "probe-length")


def direction(case: Comparisons) -> Iterator[Finding]:
    """Outputs, or a change of them, that don't point where the site's own probe does."""
    limits = case.config
    for name, code in _COSINES.items():
        if name not in case.values:
            continue
        cosine, others = float(case.values[name].min()), case.usual(name)
        known = others.voters >= limits.minimum
        least = limits.along * max(others.centre, 0.0) if known else limits.against
        if cosine < least:
            figures = {"cosine": cosine, "least": least}
            yield Finding(code=code, action="quarantine", figures=figures)


def outputs(case: Comparisons) -> Iterator[Finding]:
    """Outputs on synthetic inputs that differ much more or less than those of others."""
    others = case.usual(SPREAD, wide=_WIDE)
    if SPREAD not in case.values or others.voters < case.config.minimum:
        return
    values = case.values[SPREAD]
    away, limit = others.deviations(values), _WIDE * case.config.deviations
    if figures := _beyond(values, away, limit, "spread", others):
        yield Finding(code="outputs", action="quarantine", figures=figures)


FREE = (norm, layers, probe, direction)
"""Those that cost no forward pass."""


def _many_times(case: Comparisons, name: str, code: str) -> Iterator[Finding]:
    """A length that is many times the others' where they are too few to tell what is usual."""
    if found := case.among_few(name):
        away, others = found
        if float(away.max()) > log(case.config.times):
            norm, usually = exp(float(case.values[name].max())), exp(others.centre)
            figures = {"norm": norm, "usual": usually, "most": case.config.times * usually}
            yield Finding(code=code, action="quarantine", figures=figures)


def _beyond(
    values: Tensor, away: Tensor, limit: float, what: str, others: Reference
) -> dict[str, float]:
    """Figures of the logarithm that is farthest from the others'; none within the limit."""
    worst = int(away.abs().argmax())
    if float(away[worst].abs()) <= limit:
        return {}
    figures = {what: exp(float(values[worst])), "usual": exp(others.centre)}
    return {**figures, "deviations": float(away[worst])}
