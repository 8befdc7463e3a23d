"""The routes of the enrolment service by which a registered site asks for a network or the release.

The gateway has authenticated the site and names it in a header that nobody else can set. The
release that a context belongs to is its ``ETag``, and ``If-Match`` of the request with the context.
A release's file has one too, for ``If-None-Match``, and for ``If-Range`` with a ``Range``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import ClientDisconnect

from f2l_fed.errors import F2LError, LayoutMismatch, WireError
from f2l_fed.wire.enrolment import (
    FILE_TYPE,
    NETWORK_PATH,
    RECORDS_TYPE,
    RELEASE_PATH,
    SITE_HEADER,
)
from server.asgi import limited_body
from server.generator.compact_release import NotForSites
from server.generator.network_service import NetworkService, NoRelease, NotPromoted

_LOG = logging.getLogger("f2l.networks")

_FAILED = "The server failed; its log says why."


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The service of networks as it is offered.

    Args:
        service: The service.
        largest_bytes: Largest context that it takes.
    """

    service: NetworkService
    largest_bytes: int


def add_network_routes(app: FastAPI, networks: Networks) -> None:
    """Adds the routes to an app."""
    # One at a time, in a thread: others of the process go on meanwhile.
    turn = asyncio.Semaphore(1)
    waiting: set[str] = set()

    async def answer(site: str, act: Callable[[], Response]) -> Response:
        if site in waiting:
            # No site keeps others waiting for more than one request of its own.
            return _refusal(429, "Another request of this site is under way.")
        waiting.add(site)
        try:
            async with turn:
                return await asyncio.to_thread(act)
        except NotPromoted as error:
            return _refusal(412, str(error))
        except NotForSites as error:
            return _refusal(403, str(error))
        except NoRelease as error:
            return _refusal(409, str(error))
        except (WireError, LayoutMismatch) as error:
            return _refusal(400, str(error))
        except (F2LError, OSError):
            # Its sentence may name the server's files.
            _LOG.exception("a site's request for a network failed")
            return _refusal(500, _FAILED)
        finally:
            waiting.discard(site)

    def records(release: str, content: bytes) -> Response:
        return Response(content, media_type=RECORDS_TYPE, headers={"etag": f'"{release}"'})

    def file(request: Request) -> Response:
        found = networks.service.release_file()
        headers = {"etag": found.tag, "cache-control": "no-store"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        if request.method == "GET":
            networks.service.note_fetched(_site_of(request), found)
        return FileResponse(found.path, media_type=FILE_TYPE, headers=headers)

    @app.get(NETWORK_PATH)
    async def context_request(request: Request) -> Response:
        return await answer(_site_of(request), lambda: records(*networks.service.context_request()))

    @app.api_route(RELEASE_PATH, methods=["GET", "HEAD"])
    async def release_file(request: Request) -> Response:
        return await answer(_site_of(request), lambda: file(request))

    @app.post(NETWORK_PATH)
    async def task(request: Request) -> Response:
        site = _site_of(request)
        release = request.headers.get("if-match", "").strip('"')
        try:
            reply = await limited_body(request, networks.largest_bytes)
        except WireError as error:
            return _refusal(413, str(error))
        except ClientDisconnect:
            return _refusal(400, "The request is damaged.")
        return await answer(
            site, lambda: records(release, networks.service.task(site, release, reply))
        )


def _site_of(request: Request) -> str:
    return request.headers[SITE_HEADER]


def _refusal(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=status)
