"""One Flower SuperNode as a child process: its start, its output, the end of all it started."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clients.onboarding.keys import AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE
from clients.site.site_folder import SiteFolder
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.flower.inner_access import SOCKET

_POLL_S = 0.1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NO_CAUSE = re.compile(r"^INFO|https://")
"""Lines that don't tell the cause of a SuperNode's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The start of a process.

    Args:
        command: Command line.
        environment: Environment variables, all of them.
        folder: Working directory.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path


def prepare(site: SiteFolder) -> Launch:
    """Writes the SuperNode's node configuration and two commands; returns its start.

    Args:
        site: The site, by its absolute path.
    """
    flower = site.state / "flower"
    # No other account reaches the socket in it.
    flower.chmod(0o700)
    (flower / "bin").mkdir(exist_ok=True)
    write_atomically(
        flower / "node.toml", f"site = {json.dumps(str(site.file), ensure_ascii=False)}\n"
    )
    commands = {
        "flower-superexec": [sys.executable, "-m", "clients.daemon.superexec_main"],
        "flwr-clientapp": [sys.executable, "-m", "clients.daemon.clientapp_main"],
    }
    for name, command in commands.items():
        text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
        write_atomically(flower / "bin" / name, text, mode=0o700)
    return Launch(command=command_line(site), environment=environment(site), folder=site.state)


def command_line(site: SiteFolder) -> list[str]:
    """The command line of the SuperNode; it names files that hold secrets, never a secret."""
    server, node_config = site.server, site.state / "flower" / "node.toml"
    command = [sys.executable, "-m", "clients.daemon.supernode_main", "--superlink", server.address]
    command += ["--node-config", str(node_config)]
    if server.insecure:
        command.append("--insecure")
    if server.root_certificates:
        command += ["--root-certificates", str(site.path / server.root_certificates)]
    if server.private_key:
        command += ["--auth-supernode-private-key", str(site.path / server.private_key)]
    return command


def environment(site: SiteFolder) -> dict[str, str]:
    """The environment of the SuperNode and all that it starts: folders, files and limits."""
    server, flower = site.server, site.state / "flower"
    tls = (
        {
            CERTIFICATE_VARIABLE: str(site.path / server.certificate),
            KEY_VARIABLE: str(site.path / server.certificate_key),
            AUTHORITY_VARIABLE: str(site.path / server.root_certificates),
        }
        if server.certificate
        else {}
    )
    return {
        **os.environ,
        **site.config.limits.environment(),
        **tls,
        "FLWR_HOME": str(flower),
        # Below the working folder of all its processes: the path of a socket may not be long.
        SOCKET: "flower/runtime",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
        # A SuperNode finds the commands that it may start here and nowhere else.
        "PATH": str(flower / "bin"),
    }


def run_once(
    launch: Launch,
    log: logging.Logger,
    *,
    stopped: Callable[[], bool],
    started: Callable[[int], None],
    grace_s: float,
) -> str:
    """Runs a SuperNode until it ends or ``stopped()``, then ends every process that it started.

    Args:
        launch: Its start.
        log: Log for its output.
        stopped: Whether it is to end.
        started: Called with its process id.
        grace_s: Time from asking its processes to end until they are killed.

    Returns:
        The cause of its end, with the last line of output that may explain it.
    """
    process = subprocess.Popen(
        launch.command,
        cwd=launch.folder,
        env=dict(launch.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    last_line: list[str] = []

    def listen(output: IO[str]) -> None:
        with output:
            for line in output:
                if text := _COLOURS.sub("", line).strip():
                    log.info("%s", text)
                    if not _NO_CAUSE.search(text):
                        last_line[:] = [text]

    listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
    listener.start()
    try:
        started(process.pid)
        while process.poll() is None and not stopped():
            time.sleep(_POLL_S)
    finally:
        end_group(process.pid, grace_s, process.poll)
        code = process.wait()
        listener.join(timeout=grace_s)
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{cause}, after saying: {last_line[0]}" if last_line else cause


def end_group(group: int, grace_s: float, reap: Callable[[], object] = lambda: None) -> None:
    """Asks all processes of a group to end, and kills those that remain.

    Args:
        group: Process id of the group's leader.
        grace_s: Time from asking to killing, and again to giving up.
        reap: Called while waiting, to collect the leader where it is a child.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        end = time.monotonic() + grace_s
        while time.monotonic() < end:
            reap()
            with suppress(ChildProcessError):
                # In a container this process may inherit the children of an ended leader.
                os.waitpid(-group, os.WNOHANG)
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            time.sleep(_POLL_S)
