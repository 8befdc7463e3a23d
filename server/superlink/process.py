"""Flower's SuperLink as a child process of the server, closed to all other users of the machine.

Flower's Control routes authenticate nobody: any process that reaches the port could run an app. The
port is on loopback, and here the routes also require a secret that only the server can read.

Flower accepts a site's signed requests until five minutes after their time, but only five seconds
before it: a clock that is a little fast would exclude a site. Here it is five minutes either way.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from flwr.superlink.routers.fleet import node_auth
from starlette.middleware import Middleware

from f2l_fed.wire.enrolment import CLOCK_TOLERANCE_S
from f2l_fed.wire.reply_bound import ReplyBound, largest_built_in
from server.superlink.redelivery import install_redelivery
from server.superlink.reply_intake import take_replies

SECRET_HEADER = "x-f2l-secret"
SECRET_FILE = "F2L_LINK_SECRET_FILE"
"""Environment variable: the file that holds the secret."""

BOUND = "F2L_REPLY_BOUND"
"""Environment variable: the most objects and bytes of a site's reply; see `ReplyBound`."""

_OPEN = ("/v1/fleet/", "/v1/runtime/", "/health")

_Scope = dict[str, Any]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequireSecret:
    """ASGI middleware: all routes but those for sites and tasks require a secret.

    Args:
        app: The app behind it.
        secret: The secret.
    """

    def __init__(self, app: Any, secret: bytes) -> None:
        self._app, self._secret = app, secret

    async def __call__(self, scope: _Scope, receive: Any, send: _Send) -> None:
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _allowed(self, scope: _Scope) -> bool:
        if scope["type"] != "http":
            return False
        if scope["path"].startswith(_OPEN):
            return True
        given = dict(scope["headers"]).get(SECRET_HEADER.encode(), b"")
        return hmac.compare_digest(given, self._secret)


def main() -> None:
    """Takes the arguments of ``flower-superlink``."""
    if not hasattr(extensions, "get_middleware"):
        sys.exit("this version of Flower has no get_middleware; nothing is run")
    # A request's age has to lie above minus the first and below the sum of both.
    for name, seconds in (
        ("SYSTEM_TIME_TOLERANCE", CLOCK_TOLERANCE_S),
        ("TIMESTAMP_TOLERANCE", 0),
    ):
        if not hasattr(node_auth, name):
            sys.exit(f"this version of Flower has no {name}; nothing is run")
        setattr(node_auth, name, seconds)
    try:
        install_redelivery()
        take_replies(_bound(os.environ.pop(BOUND, "")))
    except AttributeError as error:
        sys.exit(f"this version of Flower is not supported; nothing is run: {error}")
    # Removed from the environment before any child process could inherit it.
    secret = Path(os.environ.pop(SECRET_FILE)).read_bytes().strip()
    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(RequireSecret, secret=secret), *before())
    flower_superlink()


def _bound(text: str) -> ReplyBound:
    """The bound in the environment, two numbers; without one that of the largest network."""
    if not text:
        return largest_built_in()
    objects, size = map(int, text.split())
    return ReplyBound(objects, size)


if __name__ == "__main__":
    main()
