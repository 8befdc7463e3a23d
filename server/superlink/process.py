"""Flower's SuperLink as a child process of the server, closed to all other users of the machine.

Flower's Control routes authenticate nobody, and its Runtime routes give the task of a run to any
process that asks for it. The port is on loopback, which all users share, and here all routes
require a secret that only the server's own user can read. The gateway has it too, so that nobody
passes it by; an external one has not, and the routes for sites are then open.

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

from f2l_fed.flower.inner_access import SECRET_FILE, SECRET_HEADER
from f2l_fed.wire.enrolment import CLOCK_TOLERANCE_S
from f2l_fed.wire.reply_bound import ReplyBound, largest_built_in
from server.superlink.redelivery import install_redelivery
from server.superlink.reply_intake import take_replies

EXTERNAL = "F2L_EXTERNAL_GATEWAY"
"""Environment variable: set where the gateway is external."""

BOUND = "F2L_REPLY_BOUND"
"""Environment variable: the most objects and bytes of a site's reply; see `ReplyBound`."""

_Scope = dict[str, Any]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequireSecret:
    """ASGI middleware: all routes but the open ones require a secret.

    Args:
        app: The app behind it.
        secret: The secret.
        open: Beginnings of the open routes.
    """

    def __init__(self, app: Any, secret: bytes, open: tuple[str, ...]) -> None:
        self._app, self._secret, self._open = app, secret, open

    async def __call__(self, scope: _Scope, receive: Any, send: _Send) -> None:
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _allowed(self, scope: _Scope) -> bool:
        if scope["type"] != "http":
            return False
        if scope["path"].startswith(self._open):
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
    secret = Path(os.environ[SECRET_FILE]).read_bytes().strip()
    before = extensions.get_middleware
    routes = ("/health", "/v1/fleet/") if os.environ.get(EXTERNAL) else ("/health",)
    required = Middleware(RequireSecret, secret=secret, open=routes)
    extensions.get_middleware = lambda: (required, *before())
    flower_superlink()


def _bound(text: str) -> ReplyBound:
    """The bound in the environment, two numbers; without one that of the largest network."""
    if not text:
        return largest_built_in()
    objects, size = map(int, text.split())
    return ReplyBound(objects, size)


if __name__ == "__main__":
    main()
