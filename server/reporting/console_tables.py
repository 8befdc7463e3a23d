"""Tables of a federation's result for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from f2l_fed.evaluation.arm_names import FEWEST_SITES, GENERATED, label
from server.reporting.changes import GROUPS, changes_after
from server.reporting.personalised import personalised_rows

TITLES = {
    ("few-shot", "seen"): "Held-out sites with known classes in new combinations",
    ("few-shot", "unseen"): "Held-out sites with unseen classes",
}


def result_table(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table and a sentence for each kind of held-out site, then the gate's decision and notes."""
    for kind, part in result["held_out"].items():
        if part is None:
            continue
        count = result["held_out_sites"][kind]
        known = count >= FEWEST_SITES
        title = TITLES.get((result["scenario"], kind), "Held-out sites")
        table = _titled(
            f"{title}: {count}.\nAccuracy in % after n local steps"
            + (", ± half of its 95% interval over sites" if known else "; too few for an interval")
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
                Text(
                    f"{100 * value:.1f}" + f" ±{100 * error:.1f}" * known,
                    style="bold" * (value == top),
                )
                for value, error, top in zip(row["accuracy"], row["ci95"], best, strict=True)
            ]
            table.add_row(label(arm), *cells)
        yield table
        yield Text(_sentence(result["steps_to_target"][kind]))
        if part.get("confidence"):
            yield _confidence_table(part["confidence"])
        yield Text()
    if result.get("training_sites"):
        yield _training_table(result)
        yield Text()
    if result.get("baselines"):
        yield _costs(result)
        yield Text()
    if result.get("personalised"):
        yield _personalised(personalised_rows(result), result["personalised"]["rounds"])
        yield Text()
    yield from map(Text, _judgement(result["held_out_verdict"]))
    for note in result["data_notes"]:
        yield Text(note)
    yield Text()


def _titled(title: str) -> Table:
    """A table without lines, under its title."""
    return Table(
        title=title,
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )


def _confidence_table(confidence: Mapping[str, Mapping[str, float]]) -> Table:
    """The probabilities of every start before the first step."""
    table = _titled(
        "Before the first step: loss in nats, calibration error in %, and accuracy in % of "
        "the surest 80%"
    )
    table.add_column("start", no_wrap=True)
    for name in ("loss", "error", "surest 80%"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm, own in confidence.items():
        table.add_row(
            label(arm),
            f"{own['loss']:.3f}",
            f"{100 * own['calibration_error']:.1f}",
            f"{100 * own['accuracy_at_80']:.1f}",
        )
    return table


def _training_table(result: Mapping[str, Any]) -> Table:
    """The networks that training sites have after each round, and what changes then."""
    table = _titled("Training sites' own networks: accuracy in % on their test examples")
    table.add_column("after round", no_wrap=True)
    groups = [key for key in GROUPS if result.get("changes")]
    for name in ("mean of sites", "of examples", *(GROUPS[key] for key in groups)):
        table.add_column(name, justify="right")
    if groups:
        table.add_column("and then")
    for row in result["training_sites"]:
        told = [row[key] for key in ("accuracy", "weighted", *groups)]
        cells = ["–" if value is None else f"{100 * value:.1f}" for value in told]
        if groups:
            cells.append(changes_after(result, row["round"]))
        table.add_row(f"{row['round']}", *cells)
    return table


def _costs(result: Mapping[str, Any]) -> Table:
    """The baselines' costs beside those of the federation."""
    table = _titled(
        "Cost of a training site: kB in a round, gradient steps in all rounds.\n"
        "Seconds of all training: the baselines' in one thread and without any message"
    )
    table.add_column("method", no_wrap=True)
    for name in ("kB up", "kB down", "steps", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    rounds = result["rounds"]
    asked = max(1, sum(row["sites"] for row in rounds))
    up, down = (sum(row[f"bytes_{way}"] for row in rounds) / asked for way in ("up", "down"))
    seconds = sum(row["seconds"] for row in rounds)
    table.add_row("this federation", f"{up / 1e3:.1f}", f"{down / 1e3:.1f}", "", f"{seconds:.0f}")
    for key, cost in result["baselines"].items():
        table.add_row(
            label(key),
            f"{cost['bytes_up'] / 1e3:.1f}",
            f"{cost['bytes_down'] / 1e3:.1f}",
            f"{cost['local_steps']}",
            f"{cost['seconds']:.0f}",
        )
    return table


def _personalised(rows: Mapping[str, Mapping[str, Any]], rounds: Sequence[int]) -> Table:
    """The own networks of training sites, with the costs of baselines."""
    table = _titled(
        "Training sites' own networks on their own test examples: accuracy in % over all test "
        "examples\nafter a round; then the mean over sites after the last one"
    )
    table.add_column("method", no_wrap=True)
    for number in rounds:
        table.add_column(f"round {number}", justify="right", no_wrap=True)
    for name in ("sites", "kB up", "steps a round", "own steps"):
        table.add_column(name, justify="right", no_wrap=True)
    best = [max(column) for column in zip(*(row["weighted"] for row in rows.values()), strict=True)]
    for key, row in rows.items():
        cost = row.get("cost")
        table.add_row(
            label(key),
            *(
                Text(f"{100 * value:.1f}", style="bold" * (value == top))
                for value, top in zip(row["weighted"], best, strict=True)
            ),
            f"{100 * row['plain'][-1]:.1f}",
            f"{cost['bytes_up'] / 1e3:.1f}" if cost else "",
            f"{cost['steps']:.0f}" if cost else "",
            f"{cost['own_steps']:.0f}" if cost else "",
        )
    return table


def _sentence(reached: Mapping[str, Any]) -> str:
    target, needed = reached["target"], reached["arms"][GENERATED]
    goal = f"the {target['accuracy']:.1%} that a random start has after {target['steps']}"
    if needed is None:
        return f"A generated start does not reach {goal} local steps."
    return f"A generated start needs {needed} local steps to reach {goal}."


def _judgement(judged: Mapping[str, Any]) -> Iterator[str]:
    if judged["passed"]:
        yield "At these sites no other start is clearly above the generated one."
    else:
        yield "Measured at these sites, the gate would reject the release:"
        yield from (f"  {reason}" for reason in judged["reasons"])
