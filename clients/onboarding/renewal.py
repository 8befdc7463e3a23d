"""When the daemon renews the site's keys and certificate, and that it does."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from clients.onboarding import keys
from clients.onboarding.enrolment import NEW, finish_renewal, renew
from clients.site.config import SiteConfig
from clients.site.sent_log import utc_now
from f2l_fed.errors import F2LError

_SOON = 1 / 3
"""Share of the validity that is left when it is time."""

_URGENT = 0.1
"""Share at which a task at work is not waited for any longer."""

_LOOK_S = 5.0
_AGAIN_S = 600.0


class Renewal:
    """Looks after the certificate of one site.

    Args:
        config: The site's configuration.
        folder: The configuration's folder.
        state: The state folder.
    """

    def __init__(self, config: SiteConfig, folder: Path, state: Path) -> None:
        self._config, self._folder = config, folder
        self._mark = f"FLWR_HOME={state / 'flower'}".encode()
        self._path = folder / config.server.certificate
        self._version = self._file_version()
        self._looked, self._due, self._not_before = 0.0, False, 0.0

    def due(self) -> bool:
        """Whether the SuperNode is to end so that keys can be renewed, or are taken up."""
        now = time.monotonic()
        if not self._config.server.certificate or now < max(
            self._looked + _LOOK_S, self._not_before
        ):
            return self._due
        self._looked = now
        self._due = self._file_version() != self._version or (
            self._needed() and (self._left() < _URGENT or not self._at_work())
        )
        return self._due

    def attempt(self) -> str:
        """Renews, unless someone else has just done so; returns what to say about it."""
        self._due = False
        if self._file_version() != self._version:
            self._version = self._file_version()
            return "the site has new keys"
        try:
            finish_renewal(self._folder)
            if self._needed():
                renew(self._config, self._folder, now=utc_now())
            said = "keys and certificate are renewed"
        except (F2LError, OSError) as error:
            # The old ones still hold for a while; the server may just be away.
            self._not_before = time.monotonic() + _AGAIN_S
            said = f"not renewed: {error}"
        self._version = self._file_version()
        return said

    def _needed(self) -> bool:
        begun = (self._folder / (keys.TLS_KEY + NEW)).exists()
        return begun or self._left() < _SOON

    def _left(self) -> float:
        try:
            return keys.share_left(keys.certificate_of(self._path), utc_now())
        except F2LError:
            return 1.0  # the check says so; a renewal could not help

    def _at_work(self) -> bool:
        """Whether a task runs at this site."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                working = b"clients.daemon.clientapp_main" in (
                    entry / "cmdline"
                ).read_bytes().split(b"\0")
                if working and self._mark in (entry / "environ").read_bytes().split(b"\0"):
                    return True
        return False

    def _file_version(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
