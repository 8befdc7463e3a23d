"""The enrolment service: the two requests of a site outside Flower, to register and to renew.

On loopback, behind the gateway. It needs no certificate of the caller: a new site has none, and is
authenticated by the kit's token, later by a signature of the registered key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from f2l_fed.errors import ConfigError, F2LError
from server.asgi import serving
from server.membership.membership import Membership
from server.membership.site_registry import Refused

_LOG = logging.getLogger("f2l.enrolment")

_LARGEST_BYTES = 16 * 1024
_AT_A_TIME = 4


def create_app(membership: Membership) -> FastAPI:
    """The service of one federation."""
    app = FastAPI(title="F2L-Fed enrolment", docs_url=None, redoc_url=None, openapi_url=None)
    slots = asyncio.Semaphore(_AT_A_TIME)

    def enrol(form: dict[str, str]) -> str:
        return membership.enrol(
            form["site"], form["token"], form["key"], form["request"].encode("ascii")
        )

    def renew(form: dict[str, str]) -> str:
        return membership.renew(
            form["site"],
            form["key"],
            form["request"].encode("ascii"),
            form["time"],
            base64.b64decode(form["signature"], validate=True),
        )

    async def answer(
        request: Request, names: set[str], act: Callable[[dict[str, str]], str]
    ) -> JSONResponse:
        try:
            form = _form(await request.body(), names)
            async with slots:
                certificate = await asyncio.to_thread(act, form)
        except (Refused, ConfigError) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except (binascii.Error, UnicodeError):
            return JSONResponse({"error": "The request is damaged."}, status_code=400)
        except (F2LError, OSError):
            _LOG.exception("a site's request failed")
            return JSONResponse({"error": "The server failed; its log says why."}, status_code=500)
        return JSONResponse({"certificate": certificate})

    @app.post("/v1/site/enrol")
    async def site_enrol(request: Request) -> JSONResponse:
        return await answer(request, {"site", "token", "key", "request"}, enrol)

    @app.post("/v1/site/renew")
    async def site_renew(request: Request) -> JSONResponse:
        return await answer(request, {"site", "key", "request", "time", "signature"}, renew)

    return app


@asynccontextmanager
async def serve_enrolment(membership: Membership, port: int = 0) -> AsyncIterator[int]:
    """Serves on loopback until the block ends; yields the port.

    Raises:
        ConfigError: If the port can't be listened on.
    """
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            "the enrolment service can't listen",
            where=f"127.0.0.1:{port}",
            got=error.strerror or str(error),
            remedy="Choose another port, under [server] enrolment.",
        ) from error
    with listener:
        async with serving(create_app(membership), listener):
            yield listener.getsockname()[1]


def _form(body: bytes, names: set[str]) -> dict[str, str]:
    """The request's fields, all of them text.

    Raises:
        Refused: If the fields are others.
    """
    try:
        values: Any = json.loads(body) if len(body) <= _LARGEST_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or set(values) != names:
        raise Refused("invalid request", expected=", ".join(sorted(names)))
    if not all(isinstance(value, str) for value in values.values()):
        raise Refused("invalid request", expected="text alone")
    return values
