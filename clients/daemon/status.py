"""The status of a site's daemon: ``daemon.json`` in the state folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.locks import is_locked

STATUS, LOG, LOCK = "daemon.json", "daemon.log", "daemon.lock"
"""Names of the daemon's files in the state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a daemon.

    Args:
        state: "running", "waiting" before a restart, or "stopped".
        since: Begin of that state, ISO 8601.
        daemon: Process id of the daemon.
        supernode: Process id of the SuperNode, which leads its process group; 0 for none.
        restarts: Number of restarts of the SuperNode since the daemon began.
        last_end: Cause of the SuperNode's last end.
        server: ``host:port`` of the server.
        problem: Problem of the connection at that end, as a sentence; "" where none is known.
    """

    state: str
    since: str
    daemon: int
    supernode: int
    restarts: int
    last_end: str
    server: str
    problem: str = ""


def read_status(state: Path) -> Status | None:
    """The status of the daemon of a state folder; None where there was never one.

    A daemon that was killed counts as stopped.
    """
    try:
        text = (state / STATUS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    status = from_mapping(Status, json.loads(text), where=str(state / STATUS))
    if status.state != "stopped" and not is_locked(state / LOCK):
        left = f"; SuperNode {status.supernode} may still run" if status.supernode else ""
        return replace(status, state="stopped", last_end=f"the daemon was killed{left}")
    return status
