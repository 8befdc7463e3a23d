"""The daemon's child process: Flower's SuperNode with the site's certificate.

Flower's own command can't present a certificate to the server. It gives up where a handshake takes
too long, and then stays without doing anything, also where the process that starts its tasks has
ended. The server gives it up after a minute of silence, and does not accept it for as long once it
was killed. It gives its messages to any process of the machine that asks on a port of loopback;
here it listens on a Unix socket in a closed folder. All that is corrected here, and the limits of
the site's configuration apply to it and to all that it starts.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
)
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import nodestate_factory

from clients.daemon.node_state import AnsweringNodeState, pull_whole_message
from clients.onboarding.keys import AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE
from clients.site import limits
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.proxies import proxy_to
from f2l_fed.flower.inner_access import SOCKET

SILENCE_S = 120
"""Silence of a site after which the server gives its task up.

The site sends a sign of life every 20 s or so, and tries again within 25 s after a cut: one of a
minute costs no task.
"""

_GRACE_S = 3.0
"""Time for a process that is about to end by itself."""

_NOTICED_S = 3.0
"""Longest interval at which the server looks for lost nodes while it waits for answers."""

_PULL = "_pull_and_store_message"


class SiteClient(FleetHttpClient):
    """Flower's client of the Fleet routes, by the same proxy as all requests of a site."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        url, timeout = httpx.URL(base_url), self._client.timeout
        secure = url.scheme == "https"
        found = proxy_to(url.host, url.port or 443) if secure else None
        auth = (found.user, found.password) if found and found.user else None
        proxy = httpx.Proxy(f"http://{found.address}", auth=auth) if found else None
        self._client.close()
        self._client = httpx.Client(
            verify=settings.get("verify", True),
            timeout=timeout,
            follow_redirects=True,
            trust_env=False,
            proxy=proxy,
        )


class CertifiedClient(SiteClient):
    """A site's client with the site's certificate.

    It notes the node's number while the node is active. A client that finds such a note follows
    one that was killed, and deactivates that node first: Flower accepts no second node with a key
    while the first seems alive, and the first one's work is lost.
    """

    def __init__(self, base_url: str, **settings: Any) -> None:
        context = ssl.create_default_context(cafile=os.environ[AUTHORITY_VARIABLE])
        context.load_cert_chain(os.environ[CERTIFICATE_VARIABLE], os.environ[KEY_VARIABLE])
        super().__init__(base_url, **{**settings, "verify": context})
        self._note = Path(os.environ["FLWR_HOME"]) / "active"

    def _unary_unary(self, **call: Any) -> Any:
        try:
            return super()._unary_unary(**call)
        except httpx.TransportError as error:
            # Flower gives up for good on any error that names SSL: also on a handshake in which
            # the network went silent, or which the server's restart has cut short.
            if isinstance(error, httpx.TimeoutException) or "EOF" in str(error):
                raise type(error)("the server can't be reached") from error
            raise

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802
        """Activates the site's node."""
        with suppress(OSError, ValueError, httpx.HTTPError):
            killed = DeactivateNodeRequest(node_id=int(self._note.read_text()))
            super().DeactivateNode(killed)
            time.sleep(_NOTICED_S)
        response = super().ActivateNode(request)
        with suppress(OSError):
            # A full disk must not keep the site away.
            write_atomically(self._note, str(response.node_id))
        return response

    def DeactivateNode(self, request: DeactivateNodeRequest) -> DeactivateNodeResponse:  # noqa: N802
        """Deactivates the site's node."""
        response = super().DeactivateNode(request)
        self._note.unlink(missing_ok=True)
        return response


def _on_socket(app: Any, *, host: str, port: int, **settings: Any) -> uvicorn.Config:  # noqa: ARG001
    """The configuration of Flower's server, on the socket that the environment names."""
    path = Path(os.environ[SOCKET])
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        sys.exit(f"no Unix socket in the state folder ({error}): it has to be on a local disk")
    finally:
        os.umask(mask)
    return uvicorn.Config(app, fd=listener.detach(), **settings)


def _end_with_its_child() -> None:
    """Ends this process some time after the one that starts its tasks, its only child."""
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            break
        except ChildProcessError:
            time.sleep(1.0)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs a SuperNode with the arguments of ``flower-supernode``."""
    limits.apply(os.environ)
    threading.Thread(target=_end_with_its_child, daemon=True).start()
    web_server = SimpleNamespace(Config=_on_socket, Server=uvicorn.Server)
    pull: Any = getattr(start_client_internal, _PULL, None)
    changes: list[tuple[Any, str, object]] = [
        (fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", SILENCE_S // 2),
        (sys.modules[flower_supernode.__module__], "uvicorn", web_server),
        (nodestate_factory, "InMemoryNodeState", AnsweringNodeState),
        (start_client_internal, _PULL, partial(pull_whole_message, pull)),
    ]
    client = CertifiedClient if os.environ.get(CERTIFICATE_VARIABLE) else SiteClient
    changes.append((fleet_http_connection, "FleetHttpClient", client))
    for module, name, change in changes:
        if not hasattr(module, name):
            sys.exit(f"this version of Flower has no {name}; nothing is run")
        setattr(module, name, change)
    flower_supernode()
    # The SuperNode has given up, and its threads would keep the process alive: the daemon starts
    # another one only when this one has ended.
    sys.stdout.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
