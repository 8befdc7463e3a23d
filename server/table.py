"""The result of a federation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

LABELS = {
    "random": "random start",
    "global_mean": "mean of all networks",
    "nearest": "nearest network",
    "soup": "mean of 8 nearest",
    "prior": "linear prior",
    "generated": "generated",
}


def result_table(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table for each kind of held-out site, and a sentence on what it says."""
    for kind, part in result["held_out"].items():
        if part is None:
            continue
        title = (
            "Sites with classes that others have, in new combinations"
            if kind == "seen"
            else "Sites with classes that no training site has"
        )
        table = Table(
            title=f"{title} ({result['held_out_sites'][kind]} held-out sites)",
            title_justify="left",
            caption="accuracy after n local steps, ± half of its 95% interval over sites",
            caption_justify="left",
        )
        table.add_column("start")
        for step in part["steps"]:
            table.add_column(f"{step} step{'' if step == 1 else 's'}", justify="right")
        best = [
            max(row["accuracy"][column] for row in part["arms"].values())
            for column in range(len(part["steps"]))
        ]
        for arm, row in part["arms"].items():
            cells = [
                Text(f"{value:.3f} ±{error:.3f}", style="bold" if value == top else "")
                for value, error, top in zip(row["accuracy"], row["ci95"], best, strict=True)
            ]
            table.add_row(LABELS.get(arm, arm), *cells)
        yield table
        yield Text(_sentence(result["steps_to_target"][kind]))
        yield Text()


def _sentence(reached: Mapping[str, Any]) -> str:
    target, needed = reached["target"], reached["arms"]["generated"]
    goal = f"the {target['accuracy']:.3f} that a random start has after {target['steps']} steps"
    if needed is None:
        return f"A generated start does not reach {goal}."
    if needed == 0:
        return f"A generated start is above {goal} before its first step."
    return f"A generated start needs {needed} local steps for {goal}."
