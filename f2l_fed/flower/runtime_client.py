"""The client of Flower's runtime interfaces, which only processes of their own user may reach.

Flower's SuperLink and SuperNode hand their tasks to any process that asks on loopback, which every
account of the machine can do. Here a SuperNode listens on a Unix socket in a closed folder instead,
and the SuperLink, whose port serves sites too, requires a secret from a closed file. Environment
variables name both to all processes that the two start.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
from flwr.supercore.runtime import RuntimeHttpClient

from f2l_fed.flower.inner_access import SECRET_FILE, SECRET_HEADER, SOCKET, STARTING

_CLIENT = "RuntimeHttpClient"


class InnerRuntimeClient(RuntimeHttpClient):
    """Flower's client of the runtime routes, by the socket or secret that the environment names.

    It uses no proxy: a proxy would get the tokens of tasks.

    Args:
        base_url: Scheme and address.
        settings: Further arguments of Flower's client.
    """

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        socket, secret = os.environ.get(SOCKET), os.environ.get(SECRET_FILE)
        verify, timeout = settings.get("verify", True), self._client.timeout
        headers = {SECRET_HEADER: Path(secret).read_text().strip()} if secret else {}
        self._client.close()
        self._client = httpx.Client(
            verify=verify,
            transport=httpx.HTTPTransport(verify=verify, uds=socket) if socket else None,
            headers=headers,
            timeout=timeout,
            trust_env=False,
        )


def use_inner_client(module: ModuleType) -> None:
    """Replaces Flower's client by `InnerRuntimeClient` in a module of Flower's, in this process.

    Raises:
        AttributeError: If the module has no such client.
    """
    getattr(module, _CLIENT)
    setattr(module, _CLIENT, InnerRuntimeClient)


def begin_task(module: ModuleType) -> None:
    """Begins the work of a task's process: all that takes long to import has been imported.

    Until now the SuperExec has sent the heartbeats of the task; from now on Flower does.

    Args:
        module: The module of Flower's that makes the client.

    Raises:
        AttributeError: If the module has no such client.
    """
    use_inner_client(module)
    if starting := os.environ.pop(STARTING, ""):
        os.close(int(starting))
