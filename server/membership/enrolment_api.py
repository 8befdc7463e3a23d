"""The enrolment service: the requests of a site outside Flower, to register, to renew, for facts.

On loopback, behind the gateway. It needs no certificate of the caller: a new site has none, and is
authenticated by the kit's token, later by a signature of the registered key.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from f2l_fed.errors import ConfigError, F2LError, WireError
from f2l_fed.wire.enrolment import (
    ENROL_PATH,
    LARGEST_FORM_BYTES,
    RENEW_PATH,
    SELF_PATH,
    EnrolmentForm,
    Form,
    RenewalForm,
    parse_form,
)
from server.asgi import HostCheck, serving
from server.membership.membership import Membership
from server.membership.site_registry import Refused

_LOG = logging.getLogger("f2l.enrolment")

_AT_A_TIME = 4
_FAILED = "The server failed; its log says why."


def create_app(membership: Membership) -> FastAPI:
    """The service of one federation."""
    app = FastAPI(title="F2L-Fed enrolment", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(HostCheck, names=())
    slots = asyncio.Semaphore(_AT_A_TIME)

    async def answer(
        request: Request, kind: type[Form], act: Callable[[Form], str]
    ) -> dict[str, str] | JSONResponse:
        try:
            form = parse_form(kind, await _body(request))
            async with slots:
                return {"certificate": await asyncio.to_thread(act, form)}
        except (Refused, WireError) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except (binascii.Error, UnicodeError, ClientDisconnect):
            return JSONResponse({"error": "The request is damaged."}, status_code=400)
        except (F2LError, OSError):
            # Its sentence may name the server's files.
            _LOG.exception("a site's request failed")
            return JSONResponse({"error": _FAILED}, status_code=500)

    @app.post(ENROL_PATH)
    async def enrol(request: Request) -> Response:
        answered = await answer(request, EnrolmentForm, membership.enrol)
        if isinstance(answered, Response):
            return answered
        return JSONResponse({**answered, **membership.facts().to_json()})

    @app.post(RENEW_PATH)
    async def renew(request: Request) -> Response:
        answered = await answer(request, RenewalForm, membership.renew)
        return answered if isinstance(answered, Response) else JSONResponse(answered)

    @app.get(SELF_PATH)
    def facts() -> JSONResponse:
        # The gateway has authenticated the site; it gets here with nothing but the question.
        return JSONResponse(membership.facts().to_json())

    return app


async def _body(request: Request) -> bytes:
    """The body of a request, cut where it is larger than any form."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FORM_BYTES:
            break
    return body


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
