"""A federation from nothing to a finished round, by the script that a person can follow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

import server
from server import rounds
from server.children import strays
from server.federation import Federation
from tests.support.central import BIN, holds
from tests.support.deployment import free_ports

ROOT = Path(server.__path__[0]).parent
SITES = ("east", "north", "south", "west")
LIMIT_S = 600
QUICK = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}


def command_lines(marks: list[str]) -> dict[int, str]:
    found = {}
    for pid in {pid for mark in marks for pid in strays(mark)}:
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


@pytest.mark.deployment
@pytest.mark.ray
@pytest.mark.slow
def test_four_sites_finish_a_round_by_the_documented_commands_and_nothing_is_left(tmp_path):
    folder = tmp_path / "federation"
    environment = {
        **os.environ,
        **QUICK,
        "F2L_BIN": str(BIN),
        "PORTS": " ".join(map(str, free_ports(3))),
    }
    environment.setdefault("PYTHONPATH", str(ROOT))
    marks = [f"FLWR_HOME={folder / 'central/flower'}"]
    marks += [f"FLWR_HOME={folder / site / 'state/flower'}" for site in SITES]
    seen: set[str] = set()
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            ["bash", str(ROOT / "deploy/federation.sh"), str(folder)],
            env=environment,
            cwd=tmp_path,
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:

            def over() -> bool:
                seen.update(command_lines(marks).values())
                return process.poll() is not None

            ended = holds(over, timeout_s=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)
    text = (tmp_path / "said").read_text()
    assert ended, text
    assert process.returncode == 0, text
    assert holds(lambda: command_lines(marks) == {})

    (state,) = rounds.load_all(folder / "central/rounds")
    assert (state.number, state.step, state.accepted) == (1, "done", SITES)
    federation = Federation.open(folder / "central")
    assert {record.site for record in federation.zoo.snapshot().records()} == set(SITES)
    assert federation.zoo.verify() == ()
    assert set(federation.releases.read("00001").sites) == set(SITES)
    for site in SITES:
        lines = (folder / site / "state/sent.jsonl").read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["probe", "update"]

    # Tasks ran at the sites and at the server, and none of them was told its token in argv.
    assert any("clients.runner" in command for command in seen)
    assert any("flwr-serverapp" in command for command in seen)
    assert not any("--token " in command for command in seen)
