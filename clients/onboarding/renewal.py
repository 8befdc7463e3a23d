"""The daemon's renewal of the site's keys and certificate: when it is due, and the attempt."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from clients.onboarding.enrolment import finish_renewal, renew
from clients.onboarding.keys import NEW, read_certificate, remaining_share
from clients.site.sent_log import utc_now
from clients.site.site_folder import SiteFolder
from f2l_fed.errors import F2LError
from f2l_fed.wire.enrolment import KEY

_DUE_SHARE = 1 / 3
"""Share of the validity that remains when a renewal is due."""

_URGENT_SHARE = 0.1
"""Share at which a renewal no longer waits for a running task."""

_CHECK_S = 5.0
_RETRY_S = 600.0


class Renewal:
    """The certificate of one site, renewed in time.

    Args:
        site: The site, by its absolute path.
    """

    def __init__(self, site: SiteFolder) -> None:
        self._site = site
        self._mark = f"FLWR_HOME={site.state / 'flower'}".encode()
        self._path = site.path / site.server.certificate
        self._version = self._file_version()
        self._checked, self._due, self._not_before = 0.0, False, 0.0

    def due(self) -> bool:
        """Whether the SuperNode is to end so that keys can be renewed, or are taken up."""
        now = time.monotonic()
        if not self._site.server.certificate or now < max(
            self._checked + _CHECK_S, self._not_before
        ):
            return self._due
        self._checked = now
        self._due = self._file_version() != self._version or (
            self._needed() and (self._remaining() < _URGENT_SHARE or not self._task_runs())
        )
        return self._due

    def attempt(self) -> str:
        """Renews, unless another process has just done so; returns a line for the log."""
        self._due = False
        if self._file_version() != self._version:
            self._version = self._file_version()
            return "the site has new keys"
        try:
            finish_renewal(self._site.path)
            if self._needed():
                renew(self._site, now=utc_now())
            line = "keys and certificate are renewed"
        except (F2LError, OSError) as error:
            # The old ones still hold for a while; the server may just be away.
            self._not_before = time.monotonic() + _RETRY_S
            line = f"not renewed: {error}"
        self._version = self._file_version()
        return line

    def _needed(self) -> bool:
        begun = (self._site.path / (KEY + NEW)).exists()
        return begun or self._remaining() < _DUE_SHARE

    def _remaining(self) -> float:
        try:
            return remaining_share(read_certificate(self._path), utc_now())
        except F2LError:
            return 1.0  # `f2l-site check` names the problem; a renewal could not help

    def _task_runs(self) -> bool:
        """Whether a task runs at this site."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"clients.daemon.clientapp_main" not in words:
                    continue
                if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                    return True
        return False

    def _file_version(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
