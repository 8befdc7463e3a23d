"""Verdicts on submissions: an action and its reasons, as codes and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

Action = Literal["accept", "clip", "quarantine", "reject"]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""From the mildest to the severest."""

REASONS = {
    "form": "tensors of the wrong shape or type",
    "number": "an impossible declared number",
    "contradiction": "declared numbers that contradict each other",
    "not-finite": "weights that are not finite",
    "probe-not-finite": "a probe that is not finite",
    "empty-probe": "an empty probe",
    "unchanged": "an unchanged network",
    "sent-back": "a network that the site was sent, returned unchanged",
    "long": "an update longer than the others'",
    "short": "an update shorter than the others'",
    "layer": "a layer that changed more than the others'",
    "probe-length": "a probe much longer or shorter than the others'",
    "head": "outputs that disagree with the site's own probe",
    "head-change": "a change of the outputs against the site's own probe",
    "copy": "a copy of another site's network",
    "stale": "a copy of an earlier network of the site",
    "alike": "an update in the same direction as another site's",
    "exploding": "outputs that are not finite or too large on synthetic inputs",
    "constant": "the same outputs for all synthetic inputs",
    "outputs": "outputs that vary much more or less than the others' on synthetic inputs",
    "quota": "the site's quota of submissions in quarantine is used up",
}
"""Every reason by its code, as a clause; quarantine entries and round files have the codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding of one check against a submission.

    Args:
        code: A key of `REASONS`.
        action: The action it calls for.
        figures: Measured values and limits by name, e.g. ``max_allowed``.
        about: The part of the submission it is about, e.g. a declared number; "" for all of it.
    """

    code: str
    action: Action
    figures: Mapping[str, float] = field(default_factory=dict)
    about: str = ""

    def __str__(self) -> str:
        text = REASONS[self.code] + (f" ({self.about})" if self.about else "")
        figures = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}" for name, value in self.figures.items()
        )
        return f"{text}: {figures}" if figures else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The action on a submission, and its reasons.

    Args:
        action: The severest that a finding calls for; "accept" without any.
        findings: The findings, the severest first.

    >>> short = Finding(code="short", action="quarantine", figures={"norm": 0.1})
    >>> print(Verdict.of([Finding(code="alike", action="clip"), short]).reason)
    an update shorter than the others': norm 0.1
    """

    action: Action = "accept"
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> Verdict:
        """The verdict that these findings lead to."""
        if not findings:
            return cls()
        ordered = sorted(findings, key=lambda one: -ACTIONS.index(one.action))
        return cls(action=ordered[0].action, findings=tuple(ordered))

    @property
    def admitted(self) -> bool:
        """Whether it enters the zoo, perhaps shortened."""
        return self.action in ("accept", "clip")

    @property
    def code(self) -> str:
        """The severest finding's code; "" without any."""
        return self.findings[0].code if self.findings else ""

    @property
    def reason(self) -> str:
        """The severest finding as a clause; "" without any."""
        return str(self.findings[0]) if self.findings else ""

    def to_json(self) -> dict[str, Any]:
        """A JSON value, without the figures that are not finite, as JSON has none."""
        return {
            "action": self.action,
            "findings": [
                {
                    "code": one.code,
                    "action": one.action,
                    "about": one.about,
                    "figures": {k: float(v) for k, v in one.figures.items() if isfinite(v)},
                }
                for one in self.findings
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """Reads a verdict that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: If the value is anything else.
        """
        found = [Finding(**one) for one in value["findings"]]
        if any(one.code not in REASONS or one.action not in ACTIONS for one in found):
            raise ValueError("unknown code or action")
        return cls.of(found)
