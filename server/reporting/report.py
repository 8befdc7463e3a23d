"""The report of a federation: one self-contained page, the deciding number on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import DataError, UsageError
from f2l_fed.evaluation.arm_names import GENERATED, RANDOM, description, label
from server.reporting.changes import GROUPS, changes_after
from server.reporting.chart import TONES, Line, line_chart
from server.reporting.comparison import Comparison, read_comparisons
from server.reporting.examples import ExampleSite
from server.reporting.findings import (
    Rival,
    Verdict,
    after,
    alone,
    one_step,
    rivals,
    speed,
    start,
    trust,
    verdict,
)
from server.reporting.html import render
from server.reporting.personalised import personalised_rows

__all__ = ["render_report", "write_report"]

_SCHEMA = 1
_TITLES = {"seen": "Held-out sites", "unseen": "Held-out sites with unseen classes"}
_HELD_OUT = {
    "few-shot": "Their classes occur at training sites, but in other combinations, "
    "with another label order and another camera.",
    "dirichlet": "All sites share the labels; each has its own distribution of them.",
    "camera": "All sites share the labels; each has its own camera.",
    "changing": "All sites share the labels; each has some of the classes and no camera.",
    "changing-few-shot": "Their classes occur at training sites, but in other combinations, "
    "with another label order and another camera.",
    "natural": "Each site is one source of the data, such as one speaker.",
}
_OWN_CAMERA = " and another camera."
_UNSEEN = "No training site has any of their classes."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """The page's section on one kind of held-out sites."""

    title: str
    held_out: str
    comparison: Comparison
    chart: Markup | None
    verdict: Verdict
    start: str
    gain: str
    rivals: tuple[Rival, ...]


def render_report(
    result: Mapping[str, Any], examples: Mapping[str, ExampleSite] | None = None, credit: str = ""
) -> str:
    """The report as one self-contained HTML page.

    Args:
        result: Content of ``result.json``; missing parts are left out or named as missing.
        examples: Held-out sites whose pictures are shown, by kind.
        credit: The makers of the pictures.

    Raises:
        DataError: If the schema is unknown, or accuracies and step counts don't match.
    """
    if result.get("schema", _SCHEMA) != _SCHEMA:
        raise DataError(
            "the result's schema is unknown",
            where="schema",
            expected=str(_SCHEMA),
            got=repr(result["schema"]),
            remedy="Make the report with the version of F2L-Fed that wrote the result.",
        )
    comparisons = read_comparisons(result)
    tones = _tones(comparisons)
    scenario = str(result.get("scenario", ""))
    return render(
        "report.html.j2",
        result=result,
        sections=[
            _section(c, _held_out(c.group, scenario, result), tones) for c in comparisons.values()
        ],
        examples={_TITLES[kind]: site for kind, site in (examples or {}).items()},
        credit=credit,
        rounds=_totals(result.get("rounds") or []),
        label=label,
        description=description,
        personalised=personalised_rows(result) if result.get("personalised") else {},
        groups=GROUPS,
        changes_after=changes_after,
        after=after,
        lead=GENERATED,
        base=RANDOM,
    )


def write_report(
    result: Mapping[str, Any],
    path: Path,
    examples: Mapping[str, ExampleSite] | None = None,
    credit: str = "",
) -> None:
    """Writes the report atomically: a reader finds the old page or the new one.

    Args:
        result: Content of ``result.json``.
        path: The file, in an existing folder.
        examples, credit: As `render_report`.

    Raises:
        DataError: As `render_report`.
        UsageError: If the file can't be written.
    """
    page = render_report(result, examples, credit)
    try:
        write_atomically(path, page)
    except OSError as error:
        raise UsageError(
            "the report can't be written",
            where=str(path),
            got=error.strerror or str(error),
            remedy="Name a file in an existing, writable folder.",
        ) from error


def _held_out(group: str, scenario: str, result: Mapping[str, Any]) -> str:
    """The sentence on one kind of held-out sites."""
    if group == "unseen":
        return _UNSEEN
    told = _HELD_OUT.get(scenario, "")
    split = (result.get("settings") or {}).get("split") or {}
    return told if split.get("cameras", True) else told.replace(_OWN_CAMERA, ".")


def _section(comparison: Comparison, held_out: str, tones: Mapping[str, int]) -> _Section:
    title = _TITLES[comparison.group]
    lines = [
        Line(
            label=label(arm.name),
            values=arm.accuracy,
            half_widths=arm.ci95,
            tone=tones[arm.name],
            lead=arm.name == GENERATED,
        )
        for arm in comparison.arms
    ]
    return _Section(
        title=title,
        held_out=held_out,
        comparison=comparison,
        chart=line_chart(lines, comparison.steps, title=f"{title}: accuracy over local steps")
        if any(value == value for line in lines for value in line.values)
        else None,
        verdict=verdict(comparison),
        start=start(comparison),
        gain=" ".join(
            told for finding in (one_step, alone, speed, trust) if (told := finding(comparison))
        ),
        rivals=rivals(comparison),
    )


def _tones(comparisons: Mapping[str, Comparison]) -> dict[str, int]:
    """The tone of each arm, the same in every chart; grey, tone 0, for the random start."""
    names = dict.fromkeys(arm.name for c in comparisons.values() for arm in c.arms)
    others = [name for name in names if name not in (RANDOM, GENERATED)]
    return {RANDOM: 0, GENERATED: 0} | {name: 1 + i % (TONES - 1) for i, name in enumerate(others)}


def _totals(rounds: list[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {
        key: sum(row.get(key) or 0 for row in rounds)
        for key in ("sites", "seconds", "bytes_up", "bytes_down")
    }
    traffic, asked = sums["bytes_up"] + sums["bytes_down"], sums["sites"]
    return {"rows": rounds, "per_site": traffic / asked if asked else None, **sums}
