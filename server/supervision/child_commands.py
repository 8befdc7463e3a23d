"""TODO."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from f2l_fed.core.addresses import split_address
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY
from server.federation.server_settings import ServerSettings
from server.processes import ManagedProcess
from server.superlink.client import SuperLink
from server.superlink.process import SECRET_FILE

_BIN = Path(sys.executable).parent


_Told = tuple[Callable[[], Awaitable[None]], Callable[[], None]]
"""What is called when a child is ready, and when it has ended."""


def _superlink(root: Path, flower: Path, link: SuperLink, told: _Told) -> ManagedProcess:
    own = root / "certificates" / "server"
    command = [
        sys.executable,
        "-m",
        "server.superlink.process",
        "--host",
        "127.0.0.1",
        "--port",
        str(link.port),
    ]
    command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    command += ["--ssl-ca-certfile", str(own / AUTHORITY)]
    command += ["--ssl-certfile", str(own / CERTIFICATE), "--ssl-keyfile", str(own / KEY)]
    environment = {**_environment(flower), SECRET_FILE: str(flower / "secret")}
    return ManagedProcess(
        name="superlink",
        command=command,
        environment=environment,
        folder=flower,
        ready=told[0],
        gone=told[1],
    )


def _front(
    root: Path,
    settings: ServerSettings,
    flower: Path,
    behind: tuple[int, int],
    told: _Told,
) -> ManagedProcess:
    values = {
        "root": str(root),
        "listen": split_address(settings.listen, "listen"),
        "superlink": behind[0],
        "enrolment": behind[1],
        "largest_body_bytes": settings.largest_body_bytes,
        "connections": settings.connections,
        "connections_per_host": settings.connections_per_host,
    }
    write_atomically(flower / "front.json", json.dumps(values, indent=1) + "\n")
    return ManagedProcess(
        name="front",
        command=[sys.executable, "-m", "server.gateway.gateway", str(flower / "front.json")],
        environment=_environment(flower),
        folder=flower,
        ready=told[0],
        gone=told[1],
    )


def _environment(flower: Path) -> dict[str, str]:
    """What children are given; the commands that Flower starts are the ones written here."""
    commands = {
        "flower-superexec": [sys.executable, "-m", "f2l_fed.flower.superexec"],
        "flwr-serverapp": [sys.executable, str(_BIN / "flwr-serverapp")],
    }
    (flower / "bin").mkdir(exist_ok=True)
    for name, command in commands.items():
        text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
        write_atomically(flower / "bin" / name, text, mode=0o700)
    return {
        **os.environ,
        "FLWR_HOME": str(flower),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{flower / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
