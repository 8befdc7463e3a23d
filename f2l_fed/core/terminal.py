"""The console of a command: as wide as its terminal, or without line breaks where there is none."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_ENDLESS = 10_000
"""Columns without a terminal: lines for other programs are as long as they are."""


def console(*, stderr: bool = False) -> Console:
    """A console for one of the standard streams.

    Args:
        stderr: Standard error in place of standard output.
    """
    # Loaded where it is needed: what prints nothing does without.
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    seen = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if seen else _ENDLESS)
