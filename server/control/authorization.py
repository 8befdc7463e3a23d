"""The authorization of calls to the control service: roles, time limits, error messages."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography import x509

from f2l_fed.errors import ConfigError, F2LError
from server.pki.identity import Identity, Role

_LOG = logging.getLogger("f2l.control")

MOST_CALLS = 64
"""Calls that the service answers at a time; viewers together have half of them."""

_REQUEST_S = 30.0
"""Time for a caller to send the request that it has announced."""

# Status texts travel in headers, whose size gRPC limits.
_LONGEST_TEXT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The roles that may call a method, and the time limit of a call.

    Args:
        roles: The roles.
        limit_s: Seconds after which the server ends a call, even before the caller's own deadline.
    """

    roles: frozenset[Role]
    limit_s: float


class CallError(F2LError):
    """A call that is answered with a status of its own, ``status``."""

    def __init__(
        self, status: grpc.StatusCode, what: str, *, expected: str = "", got: str = ""
    ) -> None:
        super().__init__(what, expected=expected, got=got)
        self.status = status


def caller(context: grpc.aio.ServicerContext, revoked: Container[int] = frozenset()) -> Identity:
    """The identity of the caller, by the certificate that the TLS handshake has verified.

    Args:
        context: Of the call.
        revoked: Serial numbers of revoked certificates.

    Raises:
        CallError: If there is no certificate, it names no identity, or it is revoked or expired: a
            connection may outlive it.
    """
    try:
        [pem] = context.auth_context()["x509_pem_cert"]
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.serial_number in revoked:
            raise CallError(grpc.StatusCode.UNAUTHENTICATED, "the certificate has been revoked")
        if datetime.now(UTC) > certificate.not_valid_after_utc:
            raise CallError(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")
        return Identity.of(certificate)
    except (KeyError, ValueError, ConfigError) as error:
        # A damaged list of revocations ends here too: then no certificate can be trusted.
        raise CallError(
            grpc.StatusCode.UNAUTHENTICATED,
            "the certificate does not identify the caller",
            expected="one name and one known role in its subject",
        ) from error


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """An interceptor that enforces the rules, and answers an error with a status and a sentence.

    A caller is judged before its request is waited for: one without the right can't hold a call
    open. What a watch is about to tell is told only while its caller's certificate is valid.

    Args:
        rules: By full method name. A method without a rule is for nobody.
        revoked: Serial numbers of revoked certificates.
    """

    def __init__(self, rules: Mapping[str, Rule], revoked: Container[int] = frozenset()) -> None:
        self._rules, self._revoked = rules, revoked
        self._calls = RoleLimit("too many calls are open", viewer=MOST_CALLS // 2)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        rule = self._rules.get(method, Rule(roles=frozenset(), limit_s=1))
        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }

        # gRPC waits for a single request before it calls anything, and for a stream it does not.
        async def answer(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
            async with self._boundary(context, method, rule):
                return await handler.unary_unary(await _only(requests), context)

        async def stream(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> None:
            async with (
                self._boundary(context, method, rule),
                aclosing(handler.unary_stream(await _only(requests), context)) as replies,
            ):
                async for reply in replies:
                    caller(context, self._revoked)
                    await context.write(reply)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, **coding)
        return grpc.stream_unary_rpc_method_handler(answer, **coding)

    @asynccontextmanager
    async def _boundary(
        self, context: grpc.aio.ServicerContext, method: str, rule: Rule
    ) -> AsyncIterator[None]:
        try:
            identity = caller(context, self._revoked)
            _require_role(identity, method, rule)
            with self._calls.held(identity.role):
                async with asyncio.timeout(rule.limit_s):
                    yield
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"A call may take {rule.limit_s:g} s."
            )
        except CallError as error:
            await context.abort(error.status, _text(error))
        except F2LError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _text(error))
        except Exception:
            _LOG.exception("%s failed", method)
            await context.abort(
                grpc.StatusCode.INTERNAL, "The server failed to answer; its log says why."
            )


class RoleLimit:
    """A limit on how often something is held at a time, for each role by itself.

    Args:
        what: The sentence of the refusal.
        most: The limits; a role without one has none.
    """

    def __init__(self, what: str, **most: int) -> None:
        self._what, self._most = what, most
        self._held: Counter[Role] = Counter()

    @contextmanager
    def held(self, role: Role) -> Iterator[None]:
        """Holds one; raises CallError if there are too many."""
        if self._held[role] >= self._most.get(role, MOST_CALLS):
            raise CallError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                self._what,
                expected=f"{self._most[role]} at a time for all with the role {role}",
            )
        self._held[role] += 1
        try:
            yield
        finally:
            self._held[role] -= 1


async def _only(requests: AsyncIterator[Any]) -> Any:
    """The one request of a call."""
    async with asyncio.timeout(_REQUEST_S):
        async for request in requests:
            return request
    raise CallError(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request")


def _require_role(identity: Identity, method: str, rule: Rule) -> None:
    if identity.role not in rule.roles:
        raise CallError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"{method.rpartition('/')[2]} is not for this role",
            expected=" or ".join(sorted(rule.roles)) or "nobody",
            got=f"{identity.name}, {identity.role}",
        )


def _text(error: F2LError) -> str:
    return str(error)[:_LONGEST_TEXT]
