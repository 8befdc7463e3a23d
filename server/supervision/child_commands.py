"""The child processes of a central service: command lines, environments and folders."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from f2l_fed.core.addresses import split_address
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.flower.inner_access import SECRET_FILE
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY
from f2l_fed.wire.reply_bound import ReplyBound
from server.federation.server_settings import ServerSettings
from server.processes import ManagedProcess
from server.superlink.process import BOUND, EXTERNAL

ENROLMENT_SOCKET = "enrolment"
"""Name of the enrolment service's Unix socket in the folder ``flower``, where the gateway works."""

_SMALLEST_LIMIT_BYTES = 2**24

Ready = Callable[[], Awaitable[None]]
Gone = Callable[[], None]


def superlink_process(
    root: Path, port: int, *, external: bool, bound: ReplyBound, ready: Ready, gone: Gone
) -> ManagedProcess:
    """The SuperLink on loopback.

    Args:
        root: The federation's folder, absolute.
        port: Its port.
        external: Whether the gateway is external: the routes for sites then require no secret.
        bound: The limits of a site's reply.
        ready: Called after each start.
        gone: Called after each end.
    """
    own, flower = root / "certificates" / "server", root / "flower"
    command = [sys.executable, "-m", "server.superlink.process"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    command += ["--ssl-ca-certfile", str(own / AUTHORITY)]
    command += ["--ssl-certfile", str(own / CERTIFICATE), "--ssl-keyfile", str(own / KEY)]
    environment = {
        **_environment(flower),
        SECRET_FILE: str(flower / "secret"),
        BOUND: f"{bound.objects} {bound.bytes}",
    }
    if external:
        environment[EXTERNAL] = "1"
    return ManagedProcess(
        name="superlink",
        command=command,
        environment=environment,
        folder=flower,
        ready=ready,
        gone=gone,
    )


def gateway_process(
    root: Path,
    settings: ServerSettings,
    *,
    superlink: int,
    bound: ReplyBound,
    largest_context_bytes: int,
    ready: Ready,
    gone: Gone,
) -> ManagedProcess:
    """The TLS gateway for sites.

    Args:
        root: The federation's folder, absolute.
        settings: Address and limits.
        superlink: Port of the SuperLink.
        bound: The limits of a site's reply; no request needs to be larger, but Flower's own ones.
        largest_context_bytes: Largest request with a context.
        ready: Called after each start.
        gone: Called after each end.
    """
    flower = root / "flower"
    values = {
        "root": str(root),
        "listen": split_address(settings.listen, "listen"),
        "superlink": superlink,
        "enrolment": ENROLMENT_SOCKET,
        "secret": str(flower / "secret"),
        "largest_body_bytes": min(
            settings.largest_body_bytes, max(bound.bytes, _SMALLEST_LIMIT_BYTES)
        ),
        "largest_context_bytes": largest_context_bytes,
        "connections": settings.connections,
        "connections_per_host": settings.connections_per_host,
    }
    write_atomically(flower / "gateway.json", json.dumps(values, indent=1) + "\n")
    return ManagedProcess(
        name="gateway",
        command=[sys.executable, "-m", "server.gateway.gateway", str(flower / "gateway.json")],
        environment=_environment(flower),
        folder=flower,
        ready=ready,
        gone=gone,
    )


def _environment(flower: Path) -> dict[str, str]:
    """The environment of a child; the commands that Flower starts are the ones written here."""
    commands = {
        "flower-superexec": [sys.executable, "-m", "f2l_fed.flower.superexec"],
        "flwr-serverapp": [sys.executable, "-m", "server.superlink.serverapp_main"],
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
