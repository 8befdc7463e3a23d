"""How long tests wait for what must come: long, since only a test that fails waits to the end."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 900.0
"""For one step of a test: on slow cores that several deployments share it takes many minutes."""


def holds(
    condition: Callable[[], bool], *, timeout_s: float = PATIENCE_S, every_s: float = 0.1
) -> bool:
    """Whether ``condition()`` becomes true in time; looks every ``every_s`` seconds."""
    end = time.monotonic() + timeout_s
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(every_s)
    return held
