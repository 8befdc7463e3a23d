"""What breaks at sites while a federation works, with real processes: the guide's table, shown.

Everything breaks in one round, each at a site of its own: the network of two is cut for a minute,
the SuperNode of a third is killed in its task, and the disk of a fourth is full. Then one comes
whose certificate is about to end and is renewed before its task. A second round shows that those
which had no answer are back by themselves.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clients.daemon.status import Status, read_status
from clients.onboarding.enrolment import register
from clients.onboarding.keys import Keys, read_certificate, remaining_share
from clients.onboarding.kit import read_kit
from clients.onboarding.site_template import create_site
from clients.site.sent_log import SentLog
from server.control import client as control_client
from server.federation.folder import Federation
from server.membership.site_registry import SiteRegistry
from server.pki.certificate_store import read_authority
from server.pki.identity import Identity
from server.processes import strays
from server.rounds import state_files
from server.rounds.state import RoundState
from server.superlink.client import SuperLinkError
from tests.support.central import BIN, Central, prepare, running
from tests.support.relay import Relay, relay
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S, holds

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

CUT_S = 60.0
LITTLE_BYTES = 512
ENDS_S = 2 * PATIENCE_S
QUICK = {**os.environ, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A site's folder and its daemon."""

    folder: Path
    daemon: subprocess.Popen[bytes]
    asked: list[bool] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def status(self) -> Status:
        status = read_status(self.state)
        assert status is not None
        return status

    @property
    def log(self) -> str:
        path = self.state / "daemon.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Asks the daemon to end, once: a second signal may meet a process without a handler."""
        if not self.asked:
            self.asked.append(True)
            self.daemon.send_signal(signal.SIGTERM)

    def said(self) -> str:
        """What is new on standard error."""
        return (self.daemon.stderr.read() or b"").decode() if self.daemon.stderr else ""

    def sent(self) -> list[tuple[str, int]]:
        return [
            (entry["kind"], entry["round"]) for entry in SentLog.in_folder(self.state).entries()
        ]

    def processes(self) -> list[int]:
        return [self.daemon.pid, *strays(f"FLWR_HOME={self.state / 'flower'}")]

    def works(self) -> bool:
        """Whether a task is under way."""
        found = b""
        for pid in self.processes():
            with suppress(OSError):
                found += Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"clients.daemon.clientapp_main" in found

    def write_at_most(self, size_bytes: int) -> None:
        """Lets none of its processes write a longer file: as good as a full disk, without one."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def new_site(central: Central, folder: Path, *, port: int = 0) -> Path:
    """A registered site and its configuration; with another port than the server's, if given."""
    kit = folder.with_suffix(".kit")
    kit.write_bytes(central.ask(lambda to: control_client.add_site(to, folder.name)))
    register(read_kit(kit, now=datetime.now(UTC)), folder)
    digits_site(folder / "data")
    address = f"localhost:{port or central.gateway}"
    return create_site(folder, folder.name, folder / "data/train.npz", address=address)


@contextmanager
def at_work(site_file: Path) -> Iterator[Place]:
    daemon = subprocess.Popen(
        [BIN / "f2l-site", "run", str(site_file)],
        env=QUICK,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert daemon.stderr is not None
    os.set_blocking(daemon.stderr.fileno(), False)
    place = Place(folder=site_file.parent, daemon=daemon)
    try:
        yield place
        place.end()
        assert daemon.wait(PATIENCE_S) == 0
    finally:
        for pid in place.processes() if daemon.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        daemon.stderr.close()


def about_to_end(central: Central, folder: Path, *, after_s: float) -> None:
    """Gives a site a certificate of the same key that will be due for renewal in a moment."""
    begun = datetime.now(UTC) - timedelta(days=1) * 2 / 3 + timedelta(seconds=after_s)
    # Its validity begins five minutes before it is signed.
    begun += timedelta(minutes=5) / 3
    own = Identity(name=folder.name, role="site")
    signed = read_authority(central.certificates).certify(
        own, Keys.read(folder).tls.public_key(), days=1, now=begun
    )
    (folder / "tls.crt").write_bytes(signed)


@dataclass(frozen=True, kw_only=True)
class Played:
    """What is left of it all.

    Args:
        central: The server.
        sites: By name.
        first: The round in which everything broke.
        second: The next one.
        seen: What was looked at in between.
    """

    central: Central
    sites: dict[str, Place]
    first: RoundState
    second: RoundState
    seen: dict[str, Any]


def last_round(central: Central) -> RoundState | None:
    states = state_files.load_states(central.root / "rounds")
    return states[-1] if states else None


def finished(central: Central, number: int) -> RoundState:
    def over() -> bool:
        last = last_round(central)
        return last is not None and last.number == number and last.step in ("done", "failed")

    assert holds(over, timeout_s=ENDS_S), central.logs()[-5000:]
    state = last_round(central)
    assert state is not None
    return state


def asked(place: Place) -> bool:
    """Whether the task of the round has come, and is being worked on."""
    return place.log.count("Received successfully") == 2 and place.works()


def break_all(central: Central, early: Relay, late: Relay, sites: dict[str, Place]) -> float:
    """Breaks each site in the moment that it is meant for; returns when the last one was cut."""
    left = {
        "deaf": (lambda place: "Sent successfully" in place.log, early.cut),
        "full": (
            lambda place: ("probe", 0) in place.sent(),
            lambda: sites["full"].write_at_most(LITTLE_BYTES),
        ),
        "cut": (asked, late.cut),
        "killed": (asked, lambda: os.kill(sites["killed"].status.supernode, signal.SIGKILL)),
    }
    end, cut_at = time.monotonic() + ENDS_S, 0.0
    while left:
        assert time.monotonic() < end, central.logs()[-5000:]
        assert "run.ended" not in (central.root / "events.jsonl").read_text(), central.logs()[
            -5000:
        ]
        for name, (due, act) in list(left.items()):
            if due(sites[name]):
                act()
                del left[name]
                if name == "cut":
                    cut_at = time.monotonic()
        time.sleep(0.1)
    return cut_at


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    root = tmp_path_factory.mktemp("faults")
    # Rounds end before a retraining: it takes long, and nothing breaks in it here.
    gateway, port = prepare(root / "central", "--set", "round.minimum=100")
    seen: dict[str, Any] = {}
    with ExitStack() as stack:
        central = stack.enter_context(running(root / "central", gateway, port))
        early, late = (stack.enter_context(relay(gateway)) for _ in range(2))
        files = {
            "deaf": new_site(central, root / "deaf", port=early.port),
            "cut": new_site(central, root / "cut", port=late.port),
            "killed": new_site(central, root / "killed"),
            "full": new_site(central, root / "full"),
        }
        renewing = new_site(central, root / "renewing")
        back = stack.enter_context(ExitStack())
        sites = {
            name: (back if name in ("cut", "deaf") else stack).enter_context(at_work(file))
            for name, file in files.items()
        }
        central.ask(lambda to: control_client.start_rounds(to, sites=4))
        cut_at = break_all(central, early, late, sites)

        about_to_end(central, renewing.parent, after_s=15)
        seen["short"] = read_certificate(renewing.parent / "tls.crt")
        sites["renewing"] = back.enter_context(at_work(renewing))
        full, said = sites["full"], []

        def told() -> bool:
            said.append(full.said())
            return "nothing can be written" in "".join(said)

        assert holds(told), said
        seen["status"] = status_with_a_full_disk(files["full"])
        time.sleep(max(CUT_S - (time.monotonic() - cut_at), 0))
        early.mend()
        late.mend()

        first = finished(central, 1)
        full.write_at_most(resource.RLIM_INFINITY)
        for name in ("cut", "deaf", "renewing"):
            sites[name].end()
        back.close()
        assert holds(lambda: not central.ask(control_client.show_run).run)
        central.ask(lambda to: control_client.start_rounds(to, sites=2))
        second = finished(central, 2)
        seen["said"] = "".join([*said, full.said()])
        yield Played(central=central, sites=sites, first=first, second=second, seen=seen)
        for place in sites.values():
            place.end()


def status_with_a_full_disk(site_file: Path) -> str:
    """What f2l-site status says to an operator whose disk is full."""
    limited = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({LITTLE_BYTES}, {LITTLE_BYTES})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", limited, BIN / "f2l-site", "status", str(site_file)],
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    ).stdout


def test_a_network_cut_for_a_minute_costs_no_answer(played):
    # One was cut while its task was under way, the other one before its task had come.
    for name in ("cut", "deaf"):
        site = played.sites[name]
        assert name in played.first.accepted, (played.first, site.log)
        assert site.status.restarts == 0
        assert "Connection successful after" in site.log
        assert site.sent() == [("probe", 0), ("update", 1)]


def test_a_killed_supernode_is_back_at_once_and_asked_once_more_in_its_round(played):
    killed = played.sites["killed"]
    assert "killed" in played.first.accepted
    assert killed.status.restarts == 1
    assert killed.status.last_end.startswith("signal 9")
    assert "killed" in played.second.accepted


def test_with_a_full_disk_no_answer_leaves_and_the_site_goes_on_once_there_is_room(played):
    full = played.sites["full"]
    assert played.first.rejected["full"] == "refused: the site's program has failed (failed)"
    assert full.sent() == [("probe", 0), ("probe", 0), ("update", 2)]
    (said,) = played.seen["said"].splitlines()
    assert said.endswith("nothing leaves this site until there is room.")
    assert "nothing can be written in" in played.seen["status"]
    assert "the disk was full: this log may lack some of" in full.log
    assert full.status.restarts == 0
    assert "full" in played.second.accepted


def test_the_daemon_renews_a_certificate_in_time_and_answers_with_the_new_one(played):
    renewing = played.sites["renewing"]
    assert remaining_share(played.seen["short"], datetime.now(UTC)) < 1 / 3
    now = read_certificate(renewing.folder / "tls.crt")
    assert remaining_share(now, datetime.now(UTC)) > 0.9
    assert (renewing.status.restarts, renewing.status.problem) == (0, "")
    site = SiteRegistry(played.central.root / "registry").find("renewing")
    assert site is not None
    assert site.serial_numbers[-1] == now.serial_number
    assert "keys and certificate are renewed" in renewing.log
    assert "renewing" in played.first.accepted


def test_a_run_that_ended_before_it_could_be_aborted_is_no_error(played):
    assert holds(lambda: not played.central.ask(control_client.show_run).run)
    link, log = played.central.superlink, played.central.root / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ended = [int(event["run"]) for event in events if event["event"] == "run.ended"]
    assert len(ended) == 2
    for run in ended:
        before = link.run(run)
        link.stop(run)
        assert link.run(run) == before
    with pytest.raises(SuperLinkError):
        link.stop(max(ended) + 1)


def test_every_answer_is_in_the_zoo_once(played):
    federation = Federation.open(played.central.root)
    records = federation.zoo.snapshot().records()
    expected = {
        f"{state.number}/{site}/{episode}"
        for state in (played.first, played.second)
        for site in state.accepted
        for episode in range(federation.config.pairs)
    }
    assert Counter(record.key for record in records) == Counter(expected)
    assert federation.zoo.verify() == ()
    assert played.first.accepted == ("cut", "deaf", "killed", "renewing")
    assert played.second.accepted == ("full", "killed")
