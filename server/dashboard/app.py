"""The dashboard's web application, read only: a page for people, metrics and health checks."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from f2l_fed.errors import UsageError
from server.asgi import HostCheck, serving
from server.dashboard.metrics import federation_registry
from server.dashboard.state import read_view
from server.reporting.html import render

__all__ = ["create_app", "serve_dashboard"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(workdir: Path, hosts: Collection[str] = ()) -> FastAPI:
    """The dashboard of one federation.

    Args:
        workdir: The federation's folder; read again for every response.
        hosts: Host names beside those of loopback by which it may be asked for; a request for any
            other gets 421.
    """
    app = FastAPI(title="F2L-Fed dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(HostCheck, names=[host.lower() for host in hosts])
    registry = federation_registry(workdir)

    @app.middleware("http")
    async def harden(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(
            render("dashboard.html.j2", view=read_view(workdir), name=workdir.resolve().name)
        )

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/health")
    def health() -> JSONResponse:
        exists = workdir.is_dir()
        return JSONResponse(
            {"status": "ok" if exists else "folder is missing"}, status_code=200 if exists else 503
        )

    return app


@asynccontextmanager
async def serve_dashboard(
    workdir: Path, port: int = 0, *, hosts: Collection[str] = ()
) -> AsyncIterator[int]:
    """Serves the dashboard on loopback until the block ends.

    It has no authentication: to publish it, put a proxy that authenticates in front of it.

    Args:
        workdir: The federation's folder.
        port: The port; 0 for any free one.
        hosts: As in `create_app`.

    Yields:
        The bound port.

    Raises:
        UsageError: If the folder is missing, or the port is not available.
    """
    if not workdir.is_dir():
        raise UsageError(
            "the folder is missing",
            where=str(workdir),
            remedy="Name the folder of a federation.",
        )
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(
            "the dashboard's port is not available",
            where=f"127.0.0.1:{port}",
            got=error.strerror or str(error),
            remedy="Choose another port.",
        ) from error
    with listener:
        async with serving(create_app(workdir, hosts), listener):
            yield listener.getsockname()[1]
