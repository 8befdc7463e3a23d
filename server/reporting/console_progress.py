"""Progress of a federation on a terminal, from its events."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from f2l_fed import events
from f2l_fed.core.wording import number_of
from server.reporting.changes import CHANGES


class ProgressView:
    """Progress of a run: a bar for the present step, and a line for every decision.

    Without a terminal only the lines appear.

    Args:
        console: Where to draw.
        rounds: Number of rounds of the run.
    """

    def __init__(self, console: Console, rounds: int) -> None:
        self._console, self._rounds = console, rounds
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._sites = 0

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Stopping a bar that was never drawn would print an empty line.
        if self._console.is_terminal:
            self._bar.stop()

    def stage(self, text: str, total: int | None = None) -> None:
        """Shows a new step."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(text, total=total)

    def features(self, done: int, total: int) -> None:
        """Shows how many examples the backbone has made features of."""
        if not self._bar.tasks or self._bar.tasks[-1].total != total:
            self.stage("the backbone makes features", total)
        if self._task is not None:
            self._bar.update(self._task, completed=done)

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Takes one event."""
        event = events.current_name(event)
        if event == events.SITE_PROBED:
            if fields["done"] == 1:
                self.stage("sites check in", fields["sites"])
            self._advance()
        elif event == events.ROUND_STARTED:
            self._sites = fields["sites"]
            self.stage(f"round {fields['round']}/{self._rounds}: sites fine-tune", self._sites)
            if fields.get("remark"):
                self._warn("few sites", fields["remark"])
        elif event in (events.SITE_ACCEPTED, events.SITE_REJECTED, events.SITE_QUARANTINED):
            self._advance()
            if event == events.SITE_REJECTED:
                self._warn(f"{fields['site']} rejected", fields["reason"])
            elif event == events.SITE_QUARANTINED:
                self._warn(f"{fields['site']} in quarantine", fields["reason"])
        elif event == events.SITE_FAILED:
            self._warn(f"{fields.get('site') or 'a site'} is left out", fields["reason"])
        elif event == events.SITE_CHANGED:
            self._say(f"after round {fields['round']}: {fields['site']} {CHANGES[fields['what']]}")
        elif event == events.RETRAINING_STARTED:
            self.stage(f"round {fields['round']}/{self._rounds}: the generator is retrained")
        elif event == events.RELEASE_REJECTED:
            self._warn(f"release {fields['release']} rejected", "; ".join(fields["reasons"]))
        elif event == events.ROUND_FINISHED:
            self._say(
                f"round {fields['round']}/{self._rounds}: "
                f"{number_of(fields['accepted'], 'network')} accepted, "
                f"{fields['quarantined']} in quarantine, {fields['rejected']} rejected; "
                "accuracy at the sites "
                f"{fields['accuracy_before']:.3f} as generated, "
                f"{fields['accuracy_after']:.3f} fine-tuned; {fields['seconds']:.0f} s"
            )
            if fields["round"] == self._rounds:
                self.stage("held-out sites are measured")
        elif event == events.ROUND_FAILED:
            self._warn(f"round {fields['round']} failed", fields["reason"], "red")

    def _advance(self) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def _say(self, text: str | Text) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _warn(self, subject: str, reason: str, style: str = "yellow") -> None:
        # Both may come from a site: markup in them is not interpreted.
        self._say(Text.assemble((subject, style), f": {reason}"))
