"""The readiness of a central service: free ports before its start, answers after it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from f2l_fed.core.addresses import split_address
from f2l_fed.errors import ConfigError
from server.federation.server_settings import ServerSettings
from server.superlink.client import SuperLink

_READY_S = 90.0
_ASK_S = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's, each with one of them."""


async def wait_until_healthy(superlink: SuperLink) -> None:
    """Waits until the SuperLink answers.

    Raises:
        ConfigError: If it does not answer in time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _READY_S
    while not await asyncio.to_thread(superlink.healthy):
        if loop.time() > end:
            raise ConfigError(
                "the SuperLink does not answer",
                where=f"127.0.0.1:{superlink.port}",
                expected=f"an answer within {_READY_S:g} s",
                remedy="Its log is flower/superlink.log.",
            )
        await asyncio.sleep(0.3)


async def wait_until_open(listen: str, log: Path) -> None:
    """Waits until the gateway accepts connections.

    Args:
        listen: The address that it listens on.
        log: Its log.

    Raises:
        ConfigError: If it accepts none in time.
    """
    host, port = split_address(listen, "listen")
    loop = asyncio.get_running_loop()
    end = loop.time() + _READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection(host if host != "0.0.0.0" else None, port)
        except OSError as error:
            if loop.time() > end:
                raise ConfigError(
                    "the gateway does not listen",
                    where=f"{host}:{port}",
                    got=error.strerror or str(error),
                    remedy=f"Its log is {log}.",
                ) from error
            await asyncio.sleep(0.2)
        else:
            writer.close()
            return


def require_free_ports(settings: ServerSettings) -> None:
    """Raises ConfigError, naming the key, if an address of the settings is in use."""
    addresses = {
        "control": settings.control,
        "dashboard": f"127.0.0.1:{settings.dashboard}",
        "superlink": f"127.0.0.1:{settings.superlink}",
        "enrolment": f"127.0.0.1:{settings.enrolment}",
    }
    if settings.gateway == "built-in":
        addresses["listen"] = settings.listen
    for key, address in addresses.items():
        host, port = split_address(address, key)
        try:
            if port:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                socket.create_server((host, port), family=family).close()
        except OSError as error:
            raise ConfigError(
                "this address can't be listened on",
                where=f"[server] {key}",
                got=f"{address}: {os.strerror(error.errno) if error.errno else error}",
                remedy="End what listens there, or choose another in federation.toml.",
            ) from error


def is_listened_on(address: str) -> bool:
    """Whether something on this machine accepts connections at an address that is listened on."""
    host, port = split_address(address, "listen")
    try:
        socket.create_connection((_ANY.get(host, host), port), timeout=_ASK_S).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
