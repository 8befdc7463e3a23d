"""The standard gRPC health service, for monitors and orchestrators.

Names that can be asked for: "" serves when all parts do, "superlink" and "gateway" are the parts
that the server supervises, and the control service serves when it can answer. The answer to Check
has the server's time as HTTP header ``date``.
"""

# ruff: noqa: N802 - the methods' names and arguments are the protocol's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

from server.control.authorization import CallError, RoleLimit, caller

SERVICE = f"{pb.DESCRIPTOR.package}.Health"
MOST_WATCHES = 8
"""Watches of the health at a time, for viewers and for administrators each."""

FORMER_NAMES = {"front": "gateway"}
"""Names that parts had in earlier versions; monitors may still ask for them."""

_POLL_S = 0.5


class HealthService(HealthServicer):  # type: ignore[misc]
    """The health of the server's parts.

    Args:
        own: Name of the service that answers.
        parts: Whether each supervised part works, as it is now.
    """

    def __init__(self, own: str, parts: Mapping[str, bool]) -> None:
        self._own, self._parts = own, parts
        self._watches = RoleLimit(
            "too many watches of the server's health", viewer=MOST_WATCHES, admin=MOST_WATCHES
        )

    async def Check(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> pb.HealthCheckResponse:
        await context.send_initial_metadata((("date", formatdate(usegmt=True)),))
        status = self._status(request.service)
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            raise CallError(
                grpc.StatusCode.NOT_FOUND,
                "unknown service",
                expected=", ".join(["nothing", self._own, *self._parts]),
                got=ascii(request.service[:80]),
            )
        return pb.HealthCheckResponse(status=status)

    async def Watch(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        with self._watches.held(caller(context).role):
            sent = None
            while True:
                if (status := self._status(request.service)) != sent:
                    yield pb.HealthCheckResponse(status=status)
                sent = status
                await asyncio.sleep(_POLL_S)

    def _status(self, name: str) -> Any:
        name = FORMER_NAMES.get(name, name)
        if name == self._own:
            return pb.HealthCheckResponse.SERVING
        if name and name not in self._parts:
            return pb.HealthCheckResponse.SERVICE_UNKNOWN
        works = self._parts[name] if name else all(self._parts.values())
        return pb.HealthCheckResponse.SERVING if works else pb.HealthCheckResponse.NOT_SERVING
