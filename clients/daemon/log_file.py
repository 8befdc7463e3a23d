"""The daemon's log, which survives a full disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from f2l_fed.core.wording import number_of


@contextmanager
def open_log(path: Path, size_bytes: int) -> Iterator[logging.Logger]:
    """Opens a log file until the block ends.

    Args:
        path: The file; older parts end in .1 and .2.
        size_bytes: Size at which a new part begins.
    """
    log = logging.Logger("f2l-site")
    handler = _RobustHandler(path, maxBytes=size_bytes, backupCount=2, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        with suppress(OSError):
            handler.close()


class _RobustHandler(RotatingFileHandler):
    """A handler that reports an unwritable file once on standard error, and later in the file."""

    _failures = 0

    def emit(self, record: logging.LogRecord) -> None:
        before = self._failures
        super().emit(record)
        if before and self._failures == before:
            self._failures = 0
            text = f"the disk was full: this log may lack some of {number_of(before, 'line')}"
            super().emit(logging.LogRecord("", logging.WARNING, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002
        error = sys.exc_info()[1]
        if not self._failures:
            print(
                f"f2l-site: {self.baseFilename}: nothing can be written ({error}); nothing leaves "
                "this site until there is room.",
                file=sys.stderr,
                flush=True,
            )
        self._failures += 1
