"""The site's daemon: keeps a Flower SuperNode running beside the data until it is told to stop.

Its files in the state folder::

    daemon.json    process ids and how things stand, see `Status`
    daemon.log     what daemon and SuperNode have said; older parts end in .1 and .2
    daemon.lock    held while the daemon runs
    flower/        Flower's own files and the only commands that its SuperNode may start
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.daemon import supernode
from clients.daemon.log_file import open_log
from clients.daemon.status import _LOCK, LOG, STATUS, Status, read_status
from clients.daemon.status_page import serving_page
from clients.onboarding import server_connection
from clients.onboarding.renewal import Renewal
from clients.site.config import read_config
from clients.site.sent_log import utc_now
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import UsageError

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How the daemon deals with a SuperNode that ends or does not end.

    Args:
        first_s: Wait before the first restart; doubled for each further one.
        longest_s: Longest wait.
        steady_s: A SuperNode that ran so long starts the waits anew.
        grace_s: From asking processes to end until they are killed.
        log_bytes: Size at which a new log is begun; three are kept.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    steady_s: float = 120.0
    grace_s: float = 10.0
    log_bytes: int = 2**22

    def wait_s(self, failures: int) -> float:
        """The wait after so many ends in a row.

        >>> [Patience().wait_s(failures) for failures in (1, 2, 3, 1000)]
        [1.0, 2.0, 4.0, 60.0]
        """
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)


def run(
    site_file: Path, patience: Backoff | None = None, *, begun: Callable[[], None] = lambda: None
) -> None:
    """Runs the SuperNode of a site until SIGTERM, SIGINT or SIGHUP, and ends all it started.

    Must be called in the main thread.

    Args:
        site_file: The site's configuration.
        patience: With SuperNodes that end.
        begun: Called when nothing stands in the way any more.

    Raises:
        ConfigError: If the configuration can't stand or names no server.
        UsageError: If a daemon runs for this site already.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    supervise(site_file, lambda: bool(asked), patience or Backoff(), begun)


def supervise(
    site_file: Path,
    stopped: Callable[[], bool],
    patience: Backoff,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """As `run`, until ``stopped()``."""
    config = read_config(site_file)
    server_connection.require_address(config.server)
    state = site_file.parent.absolute() / config.state
    (state / "flower").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = site_file.parent.absolute()
    with (
        _locked(state),
        open_log(state / LOG, patience.log_bytes) as log,
        serving_page(site_file, config.page),
    ):
        _end_leftover(state, patience.grace_s)
        renewal = Renewal(config, folder, state)
        failures, restarts, last_end, problem = 0, 0, "", ""
        begun()

        def tell(now: str, pid: int) -> None:
            status = Status(
                state=now,
                since=utc_now().isoformat(timespec="seconds"),
                daemon=os.getpid(),
                supernode=pid,
                restarts=restarts,
                last_end=last_end,
                server=config.server.address,
                problem=problem,
            )
            log.info("%s", f"{now}, SuperNode {pid}" if pid else now)
            try:
                write_atomically(state / STATUS, json.dumps(asdict(status), indent=1) + "\n")
            except OSError as error:
                # A full disk must not end what answers the server.
                log.error("the status can't be written: %s", error)

        try:
            while not stopped():
                if renewal.due():
                    log.info("%s", renewal.attempt())
                began = time.monotonic()
                try:
                    supernode.prepare(state, site_file.absolute())
                    last_end = supernode.run_once(
                        supernode.command_line(config.server, folder, state),
                        supernode.environment(config, folder, state),
                        state,
                        log,
                        lambda: stopped() or renewal.due(),
                        patience.grace_s,
                        lambda pid: tell("running", pid),
                    )
                except OSError as error:
                    # No room on the disk, no memory: both come back.
                    last_end = f"it can't be started: {error}"
                if stopped():
                    break
                if renewal.due():
                    failures = 0
                    continue
                lasted = time.monotonic() - began
                failures = 1 if lasted >= patience.steady_s else failures + 1
                log.warning("the SuperNode ended: %s", last_end)
                found = server_connection.problems_of(
                    config.server, folder, connect=True, now=utc_now()
                )
                if problem := found[0] if found else "":
                    log.warning("%s", problem)
                tell("waiting", 0)
                _sleep(patience.wait_s(failures), stopped)
                restarts += 1
        finally:
            tell("stopped", 0)


def _end_leftover(state: Path, grace_s: float) -> None:
    """Ends the SuperNode of a daemon that was killed before it could do so."""
    status = read_status(state)
    if status is None or not status.supernode:
        return
    mark = f"FLWR_HOME={state / 'flower'}".encode()
    # A process id is given out again after a while; only ours has this environment.
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
                    locked(state / _LOCK, wait=False, mode=0o666, create_folder=False)
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


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopped():
        time.sleep(_POLL_S)
