"""The enrolment service: the requests of a site outside Flower, to register, to renew, for facts.

Behind the gateway, on a closed socket, or on loopback for an external one. It needs no certificate
of the caller: a new site has none, and is authenticated by the kit's token, later by a signature of
the registered key.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from f2l_fed.errors import ConfigError, DataError, F2LError, UsageError, WireError
from f2l_fed.wire.enrolment import (
    ENROL_PATH,
    LARGEST_FIGURES_BYTES,
    LARGEST_FORM_BYTES,
    RENEW_PATH,
    SCALES_PATH,
    SELF_PATH,
    SITE_HEADER,
    EnrolmentForm,
    Form,
    RenewalForm,
    parse_form,
)
from server.asgi import HostCheck, limited_body, listen_on_socket, serving
from server.membership.membership import Membership
from server.membership.network_api import Networks, add_network_routes
from server.membership.site_registry import Refused

_LOG = logging.getLogger("f2l.enrolment")

_AT_A_TIME = 4
_FAILED = "The server failed; its log says why."


def create_app(membership: Membership, *, names_sites: bool = False) -> FastAPI:
    """The service of one federation, without networks.

    Args:
        membership: Its sites.
        names_sites: Whether nobody but a gateway that names the site can reach it.
    """
    app = FastAPI(title="F2L-Fed enrolment", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(HostCheck, names=())
    slots = asyncio.Semaphore(_AT_A_TIME)

    async def answer(
        request: Request, kind: type[Form], act: Callable[[Form], str]
    ) -> dict[str, str] | JSONResponse:
        try:
            form = parse_form(kind, await limited_body(request, LARGEST_FORM_BYTES))
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
        return JSONResponse({**answered, **membership.told_facts()})

    @app.post(RENEW_PATH)
    async def renew(request: Request) -> Response:
        answered = await answer(request, RenewalForm, membership.renew)
        return answered if isinstance(answered, Response) else JSONResponse(answered)

    @app.get(SELF_PATH)
    def facts(request: Request) -> JSONResponse:
        # The gateway has authenticated the site; it gets here with nothing but the question.
        site = request.headers.get(SITE_HEADER, "") if names_sites else ""
        return JSONResponse(membership.told_facts(site))

    @app.post(SCALES_PATH)
    async def scales(request: Request) -> JSONResponse:
        site = request.headers.get(SITE_HEADER, "") if names_sites else ""
        try:
            values = json.loads(await limited_body(request, LARGEST_FIGURES_BYTES))
            if not site:
                raise WireError("nobody has authenticated the site")
            async with slots:
                return JSONResponse(await asyncio.to_thread(membership.take_scales, site, values))
        except (WireError, UsageError, DataError) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except (ValueError, RecursionError, ClientDisconnect):
            return JSONResponse({"error": "The request is damaged."}, status_code=400)
        except (F2LError, OSError):
            _LOG.exception("a site's request failed")
            return JSONResponse({"error": _FAILED}, status_code=500)

    return app


@asynccontextmanager
async def serve_enrolment(
    membership: Membership, place: int | Path, *, networks: Networks | None = None
) -> AsyncIterator[None]:
    """Serves until the block ends.

    Args:
        membership: The sites of the federation.
        place: A port of loopback, or a Unix socket.
        networks: What sites may ask for outside of rounds; None where no gateway names the site
            that asks, or on a port that others than the gateway reach.

    Raises:
        ConfigError: If it can't be listened on.
    """
    try:
        if isinstance(place, Path):
            listener = listen_on_socket(place)
        else:
            listener = socket.create_server(("127.0.0.1", place))
    except OSError as error:
        raise ConfigError(
            "the enrolment service can't listen",
            where=str(place) if isinstance(place, Path) else f"127.0.0.1:{place}",
            got=error.strerror or str(error),
            remedy="Choose another port, under [server] enrolment.",
        ) from error
    with listener:
        app = create_app(membership, names_sites=networks is not None)
        if networks is not None:
            add_network_routes(app, networks)
        async with serving(app, listener):
            yield
