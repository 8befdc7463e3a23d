"""Tables of a federation's result for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from f2l_fed.evaluation.arm_names import GENERATED, label

TITLES = {
    ("few-shot", "seen"): "Sites with classes that others have, in new combinations",
    ("few-shot", "unseen"): "Sites with classes that no training site has",
}


def result_table(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table and a sentence for each kind of held-out site, then the gate's decision and notes."""
    for kind, part in result["held_out"].items():
        if part is None:
            continue
        title = TITLES.get((result["scenario"], kind), "Sites like those that took part")
        table = Table(
            title=f"{title}: {result['held_out_sites'][kind]} held out.\n"
            "Accuracy in % after n local steps, ± half of its 95% interval over sites",
            title_justify="left",
            title_style="",
            box=None,
            padding=(0, 0, 0, 1),
            pad_edge=False,
        )
        table.add_column("start", no_wrap=True)
        for step in part["steps"]:
            table.add_column(f"n = {step}", justify="right", no_wrap=True)
        best = [
            max(row["accuracy"][column] for row in part["arms"].values())
            for column in range(len(part["steps"]))
        ]
        for arm, row in part["arms"].items():
            cells = [
                Text(f"{100 * value:.1f} ±{100 * error:.1f}", style="bold" * (value == top))
                for value, error, top in zip(row["accuracy"], row["ci95"], best, strict=True)
            ]
            table.add_row(label(arm), *cells)
        yield table
        yield Text(_sentence(result["steps_to_target"][kind]))
        yield Text()
    yield from map(Text, _judgement(result["held_out_verdict"]))
    for note in result["data_notes"]:
        yield Text(note)
    yield Text()


def _sentence(reached: Mapping[str, Any]) -> str:
    target, needed = reached["target"], reached["arms"][GENERATED]
    goal = f"what a random start has after {target['steps']} ({target['accuracy']:.1%})"
    if needed is None:
        return f"A generated start does not reach {goal}."
    return f"A generated start needs {needed} local steps for {goal}."


def _judgement(judged: Mapping[str, Any]) -> Iterator[str]:
    if judged["passed"]:
        yield "On these sites no other start is clearly above the generated one."
    else:
        yield "On these sites the release would not pass:"
        yield from (f"  {reason}" for reason in judged["reasons"])
