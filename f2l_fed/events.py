"""Events of a federation: one JSON object a line in ``events.jsonl``, and calls to a listener.

All event names are declared here. Events carry names of sites and figures, never data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

ROUND_STARTED = "round.started"
ROUND_FINISHED = "round.finished"
ROUND_FAILED = "round.failed"
SITE_PROBED = "site.probed"
SITE_ACCEPTED = "site.accepted"
SITE_REJECTED = "site.rejected"
SITE_QUARANTINED = "site.quarantined"
SITE_FAILED = "site.failed"
SITE_LATE = "site.late"
RETRAINING_STARTED = "retraining.started"
RETRAINING_FINISHED = "retraining.finished"
RELEASE_PROMOTED = "release.promoted"
RELEASE_REJECTED = "release.rejected"
RUN_STARTED = "run.started"
RUN_ENDED = "run.ended"
SITE_INVITED = "site.invited"
SITE_ENROLLED = "site.enrolled"
SITE_RENEWED = "site.renewed"
SITE_REMOVED = "site.removed"
SITE_SERVED = "site.served"
RELEASE_FETCHED = "release.fetched"
SITE_CHANGED = "site.changed"

_FORMER_NAMES = {"release.held": RELEASE_REJECTED}

Listener = Callable[[str, dict[str, Any]], None]


def current_name(event: str) -> str:
    """The present name of an event that an earlier version may have written.

    >>> current_name("release.held"), current_name("round.started")
    ('release.rejected', 'round.started')
    """
    return _FORMER_NAMES.get(event, event)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """An event log: appends events to a file and passes them on.

    Args:
        path: The file; created when needed.
        clock: Seconds since the epoch.
        listener: Called with name and fields after the line is written.
    """

    path: Path
    clock: Callable[[], float]
    listener: Listener | None = None

    def emit(self, event: str, **fields: Any) -> None:
        """Writes one line; a single write, so that readers see whole lines or a torn last one."""
        time = round(self.clock(), 3)
        line = json.dumps({"event": event, "time": time, **_json_fields(fields)}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self.listener is not None:
            self.listener(event, fields)


def _json_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields with NaN and infinities, which JSON lacks, as text."""
    return {
        name: str(value) if isinstance(value, float) and not isfinite(value) else value
        for name, value in fields.items()
    }
