"""One Flower SuperNode as a child process: what it is given, and that nothing of it stays."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from clients.onboarding.keys import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from clients.site.config import ServerConfig, SiteConfig
from f2l_fed.core.durable_files import write_atomically

_POLL_S = 0.1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SMALL_TALK = re.compile(r"^INFO|https://")
"""Lines that don't say why a SuperNode has ended."""


def prepare(state: Path, site_file: Path) -> None:
    """Writes what the SuperNode is given: the site's configuration file and two commands.

    Args:
        state: The state folder.
        site_file: Absolute path of the configuration.
    """
    flower = state / "flower"
    (flower / "bin").mkdir(exist_ok=True)
    write_atomically(
        flower / "node.toml", f"site = {json.dumps(str(site_file), ensure_ascii=False)}\n"
    )
    commands = {
        "flower-superexec": [sys.executable, "-m", "f2l_fed.flower.superexec"],
        "flwr-clientapp": [sys.executable, "-m", "clients.daemon.clientapp_main"],
    }
    for name, command in commands.items():
        text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
        write_atomically(flower / "bin" / name, text, mode=0o700)


def command_line(server: ServerConfig, folder: Path, state: Path) -> list[str]:
    """The command line of the SuperNode; it names files that hold secrets, never a secret.

    Args:
        server: What the configuration says.
        folder: The configuration's folder.
        state: The state folder.
    """
    command = [sys.executable, "-m", "clients.daemon.supernode_main", "--superlink", server.address]
    command += ["--port", str(_free_port()), "--node-config", str(state / "flower" / "node.toml")]
    if server.insecure:
        command.append("--insecure")
    if server.root_certificates:
        command += ["--root-certificates", str(folder.absolute() / server.root_certificates)]
    if server.private_key:
        command += ["--auth-supernode-private-key", str(folder.absolute() / server.private_key)]
    return command


def environment(config: SiteConfig, folder: Path, state: Path) -> dict[str, str]:
    """What the SuperNode and all that it starts are given: folders, files and limits.

    Args:
        config: The site's.
        folder: The configuration's folder.
        state: The state folder.
    """
    server, here = config.server, folder.absolute()
    shown = (
        {
            CERTIFICATE_FILE: str(here / server.certificate),
            KEY_FILE: str(here / server.certificate_key),
            AUTHORITY_FILE: str(here / server.root_certificates),
        }
        if server.certificate
        else {}
    )
    return {
        **os.environ,
        **config.limits.environment(),
        **shown,
        "FLWR_HOME": str(state / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
        # A SuperNode finds what it may start here and nowhere else.
        "PATH": str(state / "flower" / "bin"),
    }


def run_once(
    command: list[str],
    surroundings: Mapping[str, str],
    state: Path,
    log: logging.Logger,
    stopped: Callable[[], bool],
    grace_s: float,
    started: Callable[[int], None],
) -> str:
    """Runs a SuperNode until it ends or ``stopped()``, and whatever it started no longer.

    Args:
        command: Its command line.
        surroundings: Its environment.
        state: The state folder.
        log: Gets what it says.
        stopped: Whether it is to end.
        grace_s: From asking its processes to end until they are killed.
        started: Called with its process id.

    Returns:
        How it ended.
    """
    process = subprocess.Popen(
        command,
        cwd=state,
        env=dict(surroundings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    said: list[str] = []

    def listen(output: IO[str]) -> None:
        with output:
            for line in output:
                if words := _COLOURS.sub("", line).strip():
                    log.info("%s", words)
                    if not _SMALL_TALK.search(words):
                        said[:] = [words]

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
    return f"{cause}, after saying: {said[0]}" if said else cause


def end_group(group: int, grace_s: float, reap: Callable[[], object] = lambda: None) -> None:
    """Asks all processes of a group to end, and kills those that don't.

    Args:
        group: Process id of the group's leader.
        grace_s: From asking to killing, and again to giving up.
        reap: Called while waiting; collects the leader where it is a child.
    """
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            reap()
            with suppress(ChildProcessError):
                # In a container this process may inherit what its leader has left behind.
                os.waitpid(-group, os.WNOHANG)
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            time.sleep(_POLL_S)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
