"""What is decided about a submission, and why: a record with codes and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

Action = Literal["accept", "clip", "quarantine", "reject"]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""From the mildest to the severest."""

REASONS = {
    "form": "tensors of another form than was asked",
    "number": "a declared number that can't be true",
    "contradiction": "declared numbers that contradict each other",
    "not-finite": "weights that are not finite",
    "probe-not-finite": "a probe that is not finite",
    "empty-probe": "an empty probe",
    "unchanged": "an unchanged network",
    "sent-back": "another of the networks it was sent, sent back",
    "long": "an update longer than the others'",
    "short": "an update shorter than the others'",
    "layer": "a layer that changed more than the others'",
    "probe-length": "a probe of another length than the others'",
    "head": "outputs that don't fit the site's own probe",
    "head-change": "a change of the outputs that goes against the site's own probe",
    "copy": "a copy of another site's network",
    "stale": "a copy of an earlier network of the site",
    "alike": "an update like another site's",
    "exploding": "outputs that are not finite or far too large on synthetic inputs",
    "constant": "the same outputs for all synthetic inputs",
    "outputs": "outputs that differ unlike the others' on synthetic inputs",
    "quota": "as much of the site is in quarantine as may wait there",
}
"""Every reason by its code, as a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that speaks against a submission.

    Args:
        code: A key of `REASONS`.
        action: What it calls for.
        figures: What was measured and what the limit is, by name.
        about: What in the submission it is about, e.g. a declared number; "" for all of it.
    """

    code: str
    action: Action
    figures: Mapping[str, float] = field(default_factory=dict)
    about: str = ""

    def __str__(self) -> str:
        text = REASONS[self.code] + (f" ({self.about})" if self.about else "")
        figures = ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        return f"{text}: {figures}" if figures else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to become of a submission.

    Args:
        action: The severest that a finding calls for; "accept" without any.
        findings: The severest first.

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
        """A JSON value; figures that are not finite are left out of it as JSON has none."""
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
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: If it isn't that.
        """
        found = [Finding(**one) for one in value["findings"]]
        if any(one.code not in REASONS or one.action not in ACTIONS for one in found):
            raise ValueError("unknown code or action")
        return cls.of(found)
