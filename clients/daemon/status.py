"""TODO."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.locks import is_locked

STATUS = "daemon.json"


LOG = "daemon.log"


_LOCK = "daemon.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a daemon stands.

    Args:
        state: "running", "waiting" before a restart, or "stopped".
        since: When that began, ISO 8601.
        daemon: Its process id.
        supernode: Process id of the SuperNode, which leads its process group; 0 for none.
        restarts: Of the SuperNode since the daemon began.
        last_end: How the SuperNode last ended.
        server: Where it connects to.
        problem: What then kept it from the server, as a sentence; "" where that is not known.
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
    """How the daemon of a state folder stands; None where there was never one.

    One that has died without a word stands as stopped.
    """
    try:
        text = (state / STATUS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    status = from_mapping(Status, json.loads(text), where=str(state / STATUS))
    if status.state != "stopped" and not is_locked(state / _LOCK):
        left = f"; SuperNode {status.supernode} may still run" if status.supernode else ""
        return replace(status, state="stopped", last_end=f"the daemon was killed{left}")
    return status
