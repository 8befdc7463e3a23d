"""The site's daemon: keeps a Flower SuperNode running beside the data until it is told to stop.

Its files in the state folder::

    daemon.json    process ids and state, see `clients.daemon.status`
    daemon.log     output of daemon and SuperNode; older parts end in .1 and .2
    daemon.lock    held while the daemon runs
    flower/        Flower's own files and the only commands that its SuperNode may start
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.daemon import supernode
from clients.daemon.log_file import open_log
from clients.daemon.status import LOCK, LOG, STATUS, Status, read_status
from clients.daemon.status_page import serving_page
from clients.onboarding.renewal import Renewal
from clients.onboarding.server_connection import connection_problems, require_address
from clients.site.sent_log import utc_now
from clients.site.site_folder import SiteFolder
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.core.private_files import private_folder
from f2l_fed.errors import UsageError

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The waits before restarts of a SuperNode, and the limits on its end and its log.

    Args:
        first_s: Wait before the first restart; doubled for each further one.
        longest_s: Longest wait.
        steady_s: Running time after which the waits start again from the first.
        grace_s: Time from asking processes to end until they are killed.
        log_bytes: Size at which a new log begins; three are kept.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    steady_s: float = 120.0
    grace_s: float = 10.0
    log_bytes: int = 2**22

    def wait_s(self, failures: int) -> float:
        """The wait after this number of ends in a row.

        >>> [Backoff().wait_s(failures) for failures in (1, 2, 3, 1000)]
        [1.0, 2.0, 4.0, 60.0]
        """
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)


def run(
    site_file: Path, backoff: Backoff | None = None, *, begun: Callable[[], None] = lambda: None
) -> None:
    """Runs the SuperNode of a site until SIGTERM, SIGINT or SIGHUP, and ends all it started.

    Must be called in the main thread.

    Args:
        site_file: The site's configuration.
        backoff: The waits before restarts.
        begun: Called once the daemon runs.

    Raises:
        ConfigError: If the configuration is invalid or names no server.
        UsageError: If a daemon runs for this site already.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: signals.append(received))
    backoff = backoff or Backoff()
    site = SiteFolder.read(site_file).absolute()
    require_address(site.server)
    warning = private_folder(site.state)
    private_folder(site.state / "flower")
    with (
        _locked(site.state),
        open_log(site.state / LOG, backoff.log_bytes) as log,
        serving_page(site_file, site.config.page),
    ):
        if warning:
            log.warning("%s", warning)
        _end_leftover(site.state, backoff.grace_s)
        daemon = _Daemon(site, backoff, log, lambda: bool(signals))
        begun()
        daemon.run()


class _Daemon:
    """The loop of the daemon: one SuperNode after the other.

    Args:
        site: The site, by its absolute path.
        backoff: The waits between them.
        log: The daemon's log.
        stopped: Whether the daemon is to end.
    """

    def __init__(
        self,
        site: SiteFolder,
        backoff: Backoff,
        log: logging.Logger,
        stopped: Callable[[], bool],
    ) -> None:
        self._site, self._backoff, self._log, self._stopped = site, backoff, log, stopped
        self._renewal = Renewal(site)
        self._failures, self._restarts, self._last_end, self._problem = 0, 0, "", ""

    def run(self) -> None:
        """Runs SuperNodes until it is stopped."""
        try:
            while not self._stopped():
                if self._renewal.due():
                    self._log.info("%s", self._renewal.attempt())
                began = time.monotonic()
                self._last_end = self._run_once()
                if self._stopped():
                    break
                if self._renewal.due():
                    self._failures = 0
                    continue
                steady = time.monotonic() - began >= self._backoff.steady_s
                self._failures = 1 if steady else self._failures + 1
                self._wait()
        finally:
            self._write_status("stopped")

    def _run_once(self) -> str:
        """Runs one SuperNode; returns the cause of its end."""
        try:
            return supernode.run_once(
                supernode.prepare(self._site),
                self._log,
                stopped=lambda: self._stopped() or self._renewal.due(),
                started=lambda pid: self._write_status("running", pid),
                grace_s=self._backoff.grace_s,
            )
        except OSError as error:
            # The disk or the memory is full: both pass.
            return f"it can't be started: {error}"

    def _wait(self) -> None:
        self._log.warning("the SuperNode ended: %s", self._last_end)
        problems = connection_problems(self._site, connect=True, now=utc_now())
        self._problem = problems[0] if problems else ""
        if self._problem:
            self._log.warning("%s", self._problem)
        self._write_status("waiting")
        end = time.monotonic() + self._backoff.wait_s(self._failures)
        while time.monotonic() < end and not self._stopped():
            time.sleep(_POLL_S)
        self._restarts += 1

    def _write_status(self, state: str, pid: int = 0) -> None:
        status = Status(
            state=state,
            since=utc_now().isoformat(timespec="seconds"),
            daemon=os.getpid(),
            supernode=pid,
            restarts=self._restarts,
            last_end=self._last_end,
            server=self._site.server.address,
            problem=self._problem,
        )
        self._log.info("%s", f"{state}, SuperNode {pid}" if pid else state)
        try:
            write_atomically(self._site.state / STATUS, json.dumps(asdict(status), indent=1) + "\n")
        except OSError as error:
            # A full disk must not end the process that answers the server.
            self._log.error("the status can't be written: %s", error)


def _end_leftover(state: Path, grace_s: float) -> None:
    """Ends the SuperNode of a daemon that was killed before it could do so."""
    status = read_status(state)
    if status is None or not status.supernode:
        return
    mark = f"FLWR_HOME={state / 'flower'}".encode()
    # A process id is given out again after a while; only this site's SuperNode has the mark.
    with suppress(OSError):
        if mark in Path(f"/proc/{status.supernode}/environ").read_bytes().split(b"\0"):
            supernode.end_group(status.supernode, grace_s)


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    with ExitStack() as held:
        # A question for the status holds the lock for a moment.
        for attempt in range(5):
            try:
                held.enter_context(
                    locked(state / LOCK, wait=False, mode=0o666, create_folder=False)
                )
                break
            except UsageError as error:
                if attempt == 4:
                    raise UsageError(
                        "a daemon runs for this site already",
                        where=str(state),
                        remedy="Stop that one first.",
                    ) from error.__cause__
                time.sleep(_POLL_S)
        yield
