"""Checks of figures against those of the other sites, in robust standard deviations.

Without enough other sites these say nothing; only an update that goes against its own site's
probe is kept out even then. What is merely unlike others is never rejected for good: a site may
be unusual and honest, so it is put in quarantine, where a person can look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from torch import Tensor

from f2l_fed.admission.case import Case, Compared
from f2l_fed.admission.measures import (
    HEAD,
    HEAD_CHANGE,
    LAYER,
    NORM,
    PROBE,
    SPREAD,
)
from f2l_fed.admission.verdict import Finding
from f2l_fed.admission.votes import Usual

_COSINES = {HEAD: "head", HEAD_CHANGE: "head-change"}
# Layers differ more from site to site than lengths do: a bias alone may be one.
_WIDE = 1.5


def norm(case: Compared) -> Iterator[Finding]:
    """Updates much longer or shorter than the others'.

    All of a site's updates are seldom long by chance, a single one may be.
    """
    lengths, others = case.values[NORM].exp(), case.usual_length(NORM)
    if others.voters < case.config.minimum:
        return
    limits, away = case.config, _deviations(lengths, others)
    high, usually = float(away.max()), float(away.median())
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
    low = float(_deviations(case.values[NORM], case.usual_logarithm(NORM)).min())
    if -low > limits.deviations:
        figures = {"norm": float(lengths.min()), "usual": others.centre, "deviations": low}
        yield Finding(code="short", action="quarantine", figures=figures)


def layers(case: Compared) -> Iterator[Finding]:
    """A layer that changed much more than the others'; little change of one is no harm."""
    for name, values in case.values.items():
        if not name.startswith(LAYER):
            continue
        others = case.usual_length(name, wide=_WIDE)
        if others.voters < case.config.minimum:
            continue
        lengths = values.exp()
        high = float(_deviations(lengths, others).median())
        if high > _WIDE * case.config.deviations:
            figures = {"norm": float(lengths.median()), "usual": others.centre}
            yield Finding(
                code="layer",
                action="quarantine",
                figures={**figures, "deviations": high},
                about=name.removeprefix(LAYER),
            )


def probe(case: Compared) -> Iterator[Finding]:
    """A probe much longer or shorter than the others'."""
    others = case.usual_logarithm(PROBE)
    if found := _beyond(case.values[PROBE], others, case):
        figures = {"norm": exp(found[0]), "usual": exp(others.centre), **found[1]}
        yield Finding(code="probe-length", action="quarantine", figures=figures)


def direction(case: Compared) -> Iterator[Finding]:
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


def outputs(case: Compared) -> Iterator[Finding]:
    """Outputs on synthetic inputs that differ much more or less than those of others."""
    others = case.usual(SPREAD, wide=_WIDE)
    if SPREAD not in case.values:
        return
    if found := _beyond(case.values[SPREAD], others, case, _WIDE):
        figures = {"spread": exp(found[0]), "usual": exp(others.centre), **found[1]}
        yield Finding(code="outputs", action="quarantine", figures=figures)


def latent(case: Case) -> Iterator[Finding]:
    """A network far from all others in latent space."""
    if case.latents is None:
        return
    others = case.latents.usual(case.config.floor)
    if others.voters < case.config.minimum:
        return
    values = case.latents.far(case.submission.weights)
    high = float(_deviations(values, others).max())
    if high > case.config.deviations:
        yield Finding(
            code="latent",
            action="quarantine",
            figures={
                "distance": exp(float(values.max())),
                "usual": exp(others.centre),
                "deviations": high,
            },
        )


FREE = (norm, layers, probe, direction)
"""Those that cost no forward pass."""


def _deviations(values: Tensor, others: Usual) -> Tensor:
    return (values - others.centre) / others.spread


def _beyond(
    values: Tensor, others: Usual, case: Compared, wide: float = 1.0
) -> tuple[float, dict[str, float]] | None:
    """The value farthest from the others' and by how much, if that is too far."""
    if others.voters < case.config.minimum:
        return None
    away = _deviations(values, others)
    worst = int(away.abs().argmax())
    if float(away[worst].abs()) <= wide * case.config.deviations:
        return None
    return float(values[worst]), {"deviations": float(away[worst])}
