"""Flower's SuperNode with the site's certificate: what the daemon runs.

Flower's own command can't show a certificate to the server. It gives up where a handshake takes
too long, and lives on without doing anything, also where the process that starts its tasks has
ended. The server gives it up after a minute of silence, and does not let it in for as long once it
was killed. All that is mended here, and the limits of the site's configuration are put on it and
on all that it starts.
"""

from __future__ import annotations

import os
import signal
import ssl
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
)
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from clients.onboarding.keys import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from clients.site import limits
from f2l_fed.core.durable_files import write_atomically

SILENCE_S = 120
"""The server gives a task up when the site was not heard of for so long.

The site is heard of every 20 s or so, and tries again within 25 s after a cut: one of a minute
costs no task.
"""

_GRACE_S = 3.0
"""For a process that is about to end by itself."""

_NOTICED_S = 3.0
"""The server looks for nodes that have gone at least so often, while it waits for answers."""


class CertifiedClient(FleetHttpClient):
    """Flower's client of the Fleet routes, with a certificate of its own.

    It notes the node's number while it is active. One that finds such a note follows one that was
    killed, and signs it off: Flower takes no second node with a key while the first seems alive,
    and what that one was working on will not come.
    """

    def __init__(self, base_url: str, **settings: Any) -> None:
        context = ssl.create_default_context(cafile=os.environ[AUTHORITY_FILE])
        context.load_cert_chain(os.environ[CERTIFICATE_FILE], os.environ[KEY_FILE])
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
        """Signs the site on."""
        with suppress(OSError, ValueError, httpx.HTTPError):
            left = DeactivateNodeRequest(node_id=int(self._note.read_text()))
            super().DeactivateNode(left)
            time.sleep(_NOTICED_S)
        answer = super().ActivateNode(request)
        with suppress(OSError):
            # A disk that is full must not keep the site away.
            write_atomically(self._note, str(answer.node_id))
        return answer

    def DeactivateNode(self, request: DeactivateNodeRequest) -> DeactivateNodeResponse:  # noqa: N802
        """Signs the site off."""
        answer = super().DeactivateNode(request)
        self._note.unlink(missing_ok=True)
        return answer


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
    """Takes the arguments of ``flower-supernode``."""
    limits.apply(os.environ)
    threading.Thread(target=_end_with_its_child, daemon=True).start()
    changes: dict[str, object] = {"HEARTBEAT_DEFAULT_INTERVAL": SILENCE_S // 2}
    if os.environ.get(CERTIFICATE_FILE):
        changes["FleetHttpClient"] = CertifiedClient
    for name, change in changes.items():
        if not hasattr(fleet_http_connection, name):
            sys.exit(f"this version of Flower has no {name}; nothing is run")
        setattr(fleet_http_connection, name, change)
    flower_supernode()
    # It gets here when it has given up, and threads of it would keep the process: the daemon only
    # starts another one when this one has ended.
    sys.stdout.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
