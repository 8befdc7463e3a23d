"""HTTPS to the server, through the proxy that the environment names where there is one."""

from __future__ import annotations

import http.client
import socket
import ssl

from clients.site.config import ServerConfig
from f2l_fed.core.proxies import proxy_to


def https_connection(
    server: ServerConfig, context: ssl.SSLContext, *, timeout_s: float
) -> http.client.HTTPSConnection:
    """A connection that opens at its first request; TLS ends at the server, not at a proxy.

    Args:
        server: Address of the server.
        context: TLS settings.
        timeout_s: Longest wait for the connection, and for each part of an answer.

    Raises:
        ConfigError: If the environment names a proxy that can't be used.
    """
    host, port = server.host_and_port
    if (proxy := proxy_to(host, port)) is None:
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    connection = http.client.HTTPSConnection(
        proxy.host, proxy.port, timeout=timeout_s, context=context
    )
    connection.set_tunnel(host, port, proxy.headers)
    return connection


def failure_reason(error: Exception, server: ServerConfig) -> str:
    """The reason that a connection failed, as a clause that names the proxy where there is one."""
    reason = str(getattr(error, "strerror", None) or error or type(error).__name__)
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, socket.gaierror):
        reason = f"unknown host name ({reason})"
    proxy = proxy_to(*server.host_and_port)
    return f"{reason}, through the proxy {proxy.address}" if proxy else reason
