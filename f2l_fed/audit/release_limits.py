"""Limits of a release, and the decision of the gate by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import hypot, inf, isfinite
from typing import Any

from f2l_fed.core.validation import require
from f2l_fed.evaluation.arm_names import GENERATED, PRIOR, WRONG_CONTEXT

FEW_SITES = 10
"""Number of sites from which on their records are enough to judge a map by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """Limits that the figures of a release must keep.

    Args:
        min_explained: Smallest share of held-out error saved; a little below zero, because few
            sites can't tell it from zero, and no site has to start from the prediction.
        min_conditioning: Smallest worth of the right context over a wrong one; below zero for the
            same reason.
        min_dispersion: Smallest spread of generated over real networks; below is collapse.
        max_dispersion: Largest such spread; above is noise.
        min_flow_speed: Smallest speed of the flow relative to the paths it was fitted on, where it
            was taken; a field that is below it stands still.
        max_flow_speed: Largest such speed; a field that is above it runs away.
        min_memorisation_z: Smallest z-score of copying, where it was taken.
        min_context_cost: Smallest loss of accuracy, before any local step, from a wrong context in
            place of the right one, where held-out sites were measured.
        min_accuracy_gain: Smallest median change of the accuracy that sites declare for their own
            networks of the release that they have, from those of the one before; around a shared
            network alone, where a release goes on from the last one.
        max_drift: Largest squared distance of what a release expects from the networks that the
            release before was fitted on, relative to that of what that one expected, over the
            sites that both know; nothing is expected of a site with its own records.
    """

    min_explained: float = -0.1
    min_conditioning: float = -0.1
    min_dispersion: float = 0.5
    max_dispersion: float = 1.5
    min_flow_speed: float = 0.1
    max_flow_speed: float = 2.0
    min_memorisation_z: float = -3.0
    min_context_cost: float = 0.05
    min_accuracy_gain: float = -0.1
    max_drift: float = 10.0

    def __post_init__(self) -> None:
        require(
            0 <= self.min_dispersion <= self.max_dispersion,
            self,
            "min_dispersion",
            ">= 0 and not above max_dispersion",
        )
        require(
            0 <= self.min_flow_speed <= self.max_flow_speed,
            self,
            "min_flow_speed",
            ">= 0 and not above max_flow_speed",
        )

    def of_accuracy(self) -> GateConfig:
        """The limits without those that compare parameters with parameters.

        Where all sites share a network, a map that explains nothing is left out by itself.
        """
        return replace(
            self,
            min_explained=-inf,
            min_conditioning=-inf,
            min_dispersion=0.0,
            max_dispersion=inf,
            min_flow_speed=0.0,
            max_flow_speed=inf,
            min_context_cost=-inf,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """The decision of the gate.

    Args:
        passed: Whether the release may reach sites.
        reasons: Why not, a sentence each; empty if passed.
        figures: All that was judged.
    """

    passed: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, float]


def decide(
    figures: Mapping[str, float],
    limits: GateConfig,
    held_out: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> GateDecision:
    """Judges a release.

    Args:
        figures: By name: "explained", "conditioning" and "dispersion", perhaps "memorisation_z"
            and "flow_speed", and any others, which only have to be finite.
        limits: What the figures have to keep.
        held_out: Results of `f2l_fed.evaluation.summary.summarise` by kind of site, where there
            are any: no other start may be above the served one by more than the 95% interval of the
            difference, after any number of steps, and a wrong context has to cost something.

    >>> good = {"explained": 0.3, "conditioning": 0.5, "dispersion": 0.9}
    >>> decide(good, GateConfig()).passed
    True
    >>> decide(good | {"dispersion": 0.1}, GateConfig()).reasons
    ('dispersion is 0.1, below the limit of 0.5.',)
    """
    floors = {
        "explained": limits.min_explained,
        "conditioning": limits.min_conditioning,
        "dispersion": limits.min_dispersion,
    }
    reasons = [f"{name} was not measured." for name in floors if name not in figures]
    floors |= {
        "memorisation_z": limits.min_memorisation_z,
        "flow_speed": limits.min_flow_speed,
        "accuracy_gain": limits.min_accuracy_gain,
    }
    ceilings = {"dispersion": limits.max_dispersion, "flow_speed": limits.max_flow_speed}
    found = dict(figures)
    for kind, part in (held_out or {}).items():
        if part is not None:
            margins = {f"{kind}_margin_{arm}": value for arm, value in _margins(part)}
            cost = {f"{kind}_context_cost": _context_cost(part)}
            found |= margins | cost
            floors |= dict.fromkeys(margins, 0.0) | dict.fromkeys(cost, limits.min_context_cost)
    for name, figure in found.items():
        if not isfinite(figure):
            reasons.append(f"{name} is {figure}, which is not a finite number.")
        elif name in floors and figure < floors[name]:
            reasons.append(f"{name} is {figure:.3g}, below the limit of {floors[name]:.3g}.")
        elif name in ceilings and figure > ceilings[name]:
            reasons.append(f"{name} is {figure:.3g}, above the limit of {ceilings[name]:.3g}.")
    return GateDecision(passed=not reasons, reasons=tuple(reasons), figures=found)


def _margins(part: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Smallest margin of the served start over every other one, by the key of its arm."""
    served = part["arms"][GENERATED]
    for arm, row in part["arms"].items():
        if arm != GENERATED:
            leads = zip(served["accuracy"], row["accuracy"], strict=True)
            noises = zip(served["ci95"], row["ci95"], strict=True)
            yield (
                arm,
                min(
                    ours - theirs + hypot(*noise)
                    for (ours, theirs), noise in zip(leads, noises, strict=True)
                ),
            )


def _context_cost(part: Mapping[str, Any]) -> float:
    right, wrong = (part["arms"][arm]["accuracy"][0] for arm in (PRIOR, WRONG_CONTEXT))
    return float(right - wrong)
