"""A federation from nothing to a finished round, by the script that a person can follow.

Then its server is killed in the middle of a second round, and the app that conducts a third one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import server
from clients.daemon.status import read_status
from clients.site.sent_log import SentLog
from server.control import client as control_client
from server.federation.folder import Federation
from server.rounds import state_files
from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder
from tests.attacks.peers.trespasser import LOOK, open_to_others
from tests.support.central import BIN, Central
from tests.support.deployment import free_ports
from tests.support.waiting import PATIENCE_S, holds

ROOT = Path(server.__path__[0]).parent
SITES = ("north", "west")
"""Two of the script's four: every one more costs a dozen processes and shows nothing else."""

LIMIT_S = 3 * PATIENCE_S
ENDS_S = 2 * PATIENCE_S
MARK, APP = "== again\n", "server.superlink.serverapp_main"
pytestmark = [pytest.mark.deployment, pytest.mark.slow]

QUICK = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5"}


def command_lines(marks: list[str]) -> dict[int, str]:
    """Of all processes with one of these in their environment; one look at each process."""
    wanted, found = {mark.encode() for mark in marks}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if not wanted.isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = words.decode()
    return found


@dataclass(frozen=True, kw_only=True)
class Played:
    """What the script has left.

    Args:
        folder: Of the federation.
        ports: Of gateway, control and dashboard.
        environment: For every process.
        seen: Command lines of the processes that ran.
    """

    folder: Path
    ports: list[int]
    environment: dict[str, str]
    seen: set[str]

    @property
    def marks(self) -> list[str]:
        marks = [f"FLWR_HOME={self.folder / 'central/flower'}"]
        return marks + [f"FLWR_HOME={self.folder / site / 'state/flower'}" for site in SITES]


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    # Without any umask, and where every account may enter: what is closed is so by itself.
    with public_folder() as root:
        yield play(root)


def play(root: Path) -> Played:
    folder, ports = root / "federation", free_ports(3)
    environment = {**os.environ, **QUICK, "F2L_BIN": str(BIN), "PORTS": " ".join(map(str, ports))}
    environment["SITES"] = " ".join(SITES)
    environment.setdefault("PYTHONPATH", str(ROOT))
    done = Played(folder=folder, ports=ports, environment=environment, seen=set())
    with (root / "said").open("w") as said:
        process = subprocess.Popen(
            ["bash", str(ROOT / "deploy/federation.sh"), str(folder)],
            env=environment,
            cwd=root,
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            umask=0,
        )
        try:

            def over() -> bool:
                done.seen.update(command_lines(done.marks).values())
                return process.poll() is not None

            ended = holds(over, timeout_s=LIMIT_S, every_s=0.5)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(PATIENCE_S)
    text = (root / "said").read_text()
    assert ended, text
    assert process.returncode == 0, text
    assert holds(lambda: command_lines(done.marks) == {})
    return done


def test_sites_finish_a_round_by_the_documented_commands_and_nothing_is_left(played):
    folder = played.folder
    (state,) = state_files.load_states(folder / "central/rounds")[:1]
    assert (state.number, state.step, state.accepted) == (1, "done", SITES)
    federation = Federation.open(folder / "central")
    assert {record.site for record in federation.zoo.snapshot().records()} == set(SITES)
    assert federation.zoo.verify() == ()
    assert set(federation.releases.read("00001").sites) == set(SITES)
    for site in SITES:
        lines = (folder / site / "state/sent.jsonl").read_text().splitlines()
        # The first one has also asked for a network at the end.
        more = ["probe"] if site == SITES[0] else []
        assert [json.loads(line)["kind"] for line in lines] == ["probe", "update", *more]

    # Tasks ran at the sites and at the server, and none of them was told its token in argv.
    assert any("clients.daemon.clientapp_main" in words for words in played.seen)
    assert any(APP in words for words in played.seen)
    assert not any("--token " in words for words in played.seen)


@needs_root
def test_nothing_that_the_commands_wrote_without_a_umask_is_open_to_another_account(played):
    own = [played.folder / name for name in ("central", *SITES)]
    kits = [played.folder / f"{site}.kit" for site in SITES]
    written = {path.name for folder in own for path in folder.rglob("*")}
    parts = {"zoo", "releases", "rounds", "flower", "certificates", "state", "events.jsonl"}
    assert parts | {"screening.safetensors", "sent.jsonl", "daemon.log"} <= written
    assert [found for place in (*own, *kits) for found in open_to_others(place)] == []
    tried = as_nobody(LOOK, *map(str, own))
    assert tried.stdout == "True True\n" * len(own)
    assert "PermissionError" in as_nobody("import sys; open(sys.argv[1])", str(kits[0])).stderr


def started(played: Played, *words: str) -> subprocess.Popen[bytes]:
    """One of the long-running commands."""
    with (played.folder / "again.log").open("ab") as log:
        return subprocess.Popen(
            [BIN / words[0], *words[1:]],
            cwd=played.folder,
            env=played.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends them side by side."""
    living = [process for process in processes if process.poll() is None]
    for process in living:
        process.send_signal(signal.SIGTERM)
    for process in living:
        process.wait(PATIENCE_S)


def supernode_of(folder: Path) -> int:
    """The head of the process group of a site; 0 while there is none."""
    status = read_status(folder / "state")
    return status.supernode if status and status.state == "running" else 0


def test_a_server_and_an_app_killed_in_rounds_leave_every_record_once(played):
    central = played.folder / "central"
    federation = Federation.open(central)

    def up() -> bool:
        return "dashboard" in said().rpartition(MARK)[2]

    def said() -> str:
        return (played.folder / "again.log").read_text()

    def new(number: int) -> set[str]:
        return {record.site for record in federation.zoo.snapshot().records(round=number)}

    def over(number: int) -> bool:
        state = state_files.load_states(central / "rounds")[-1]
        return (state.number, state.step) in {(number, "done"), (number, "failed")}

    def idle() -> bool:
        return not service.ask(control_client.show_run).run

    def commanded(*words: str) -> None:
        """Does it once no run is under way any more; one that was over may still be ending."""
        assert holds(idle, timeout_s=ENDS_S, every_s=0.5), said()
        done = service.admin("round", *words)
        assert done.returncode == 0, (done.stderr, said())

    def killed_in(number: int, kill: Callable[[], None]) -> set[str]:
        """Starts a round and kills when one of the sites has answered and the other has not."""
        commanded("start")
        file = central / f"rounds/{number:05d}.json"
        assert holds(file.exists, timeout_s=ENDS_S), said()
        west = supernode_of(played.folder / "west")
        os.killpg(west, signal.SIGSTOP)
        try:
            assert holds(lambda: new(number) != set(), timeout_s=ENDS_S, every_s=0.2), said()
            kill()
        finally:
            os.killpg(west, signal.SIGCONT)
        assert state_files.load_states(central / "rounds")[-1].step == "exchange"
        assert "west" not in new(number)
        return new(number)

    with ExitStack() as stack:
        processes = [server := started(played, "f2l-server", "run", "central")]
        stack.callback(end, processes)
        service = Central(
            root=central, gateway=played.ports[0], control=played.ports[1], process=server
        )
        processes += [started(played, "f2l-site", "run", f"{site}/site.toml") for site in SITES]
        assert holds(up), said()

        def kill_server() -> None:
            server.kill()
            server.wait()

        kept = {2: killed_in(2, kill_server)}
        with (played.folder / "again.log").open("a") as log:
            log.write(MARK)
        processes.append(started(played, "f2l-server", "run", "central"))
        # The round may be over before the new server listens.
        assert holds(up), said()
        # It goes on by itself.
        assert holds(lambda: over(2), timeout_s=ENDS_S, every_s=0.5), said()

        def kill_app() -> None:
            (pid,) = (p for p, words in command_lines(played.marks[:1]).items() if APP in words)
            os.kill(pid, signal.SIGKILL)

        kept[3] = killed_in(3, kill_app)
        # Why an app has died is for a person to see before it is started again.
        commanded("resume")
        assert holds(lambda: over(3), timeout_s=ENDS_S, every_s=0.5), said()
    assert holds(lambda: command_lines(played.marks) == {})
    states = state_files.load_states(central / "rounds")
    assert [(state.number, state.step) for state in states] == [(n, "done") for n in (1, 2, 3)]
    assert {state.accepted for state in states} == {SITES}
    records = federation.zoo.snapshot().records()
    expected = {
        f"{number}/{site}/{episode}"
        for number in (1, 2, 3)
        for site in SITES
        for episode in range(federation.config.pairs)
    }
    assert Counter(record.key for record in records) == Counter(expected)
    assert federation.zoo.verify() == ()
    # What had come in was not asked for again.
    for number, sites_before in kept.items():
        for site in sites_before:
            entries = SentLog.in_folder(played.folder / site / "state").entries()
            told = [entry["round"] for entry in entries if entry["kind"] == "update"]
            assert told.count(number) == 1
