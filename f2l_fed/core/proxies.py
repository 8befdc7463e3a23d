"""The HTTP proxy on the way to a server, by the variables that people set for all programs.

``https_proxy`` or ``all_proxy`` name it, ``no_proxy`` excepts hosts from it: names (a subdomain
too), addresses and networks such as 10.0.0.0/8. This machine is always excepted.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from f2l_fed.core.addresses import LOOPBACK_NAMES
from f2l_fed.errors import ConfigError

_VARIABLES = ("https", "all")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy that connects to any host and port (CONNECT).

    Args:
        host: Its host.
        port: Its port.
        user: User name; "" for none.
        password: Of that user.
    """

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """``host:port``, without a user."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The header that names the user; empty without one."""
        if not self.user:
            return {}
        known = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"proxy-authorization": f"Basic {known}"}


def proxy_to(host: str, port: int) -> Proxy | None:
    """The proxy for TLS connections to a host and port, by the environment; None without one.

    Raises:
        ConfigError: If the environment names one that is not an HTTP proxy.
    """
    named = getproxies()
    url = next((named[name] for name in _VARIABLES if named.get(name)), "")
    if not url or _is_loopback(host) or _excepted(host, port, named.get("no", "")):
        return None
    try:
        found = urlsplit(url if "://" in url else f"http://{url}")
        # A "/", "?" or "#" in a password would make part of it the host.
        rest = (found.path, found.query, found.fragment)
        if found.scheme != "http" or not found.hostname or any("@" in part for part in rest):
            raise ValueError
        return Proxy(
            host=found.hostname,
            port=found.port or 80,
            user=unquote(found.username or ""),
            password=unquote(found.password or ""),
        )
    except ValueError:
        raise ConfigError(
            "the proxy can't be used",
            where="https_proxy or all_proxy in the environment",
            expected="http://host:port, a password percent-encoded",
            got=without_user(url),
            remedy="Name an HTTP proxy, or except the server with no_proxy.",
        ) from None


def without_user(url: str) -> str:
    """A proxy's URL without user and password: its scheme, and what follows the last @.

    >>> without_user("http://ann:p@ss/w0rd@proxy:3128")
    'http://…@proxy:3128'
    """
    _, at, rest = url.rpartition("@")
    scheme = _SCHEME.match(url)
    return f"{scheme[0] if scheme else ''}…@{rest}" if at else url


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower() in LOOPBACK_NAMES or (address is not None and address.is_loopback)


def _excepted(host: str, port: int, exceptions: str) -> bool:
    if proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return True
    address = _address(host)
    return address is not None and any(
        address in network for entry in exceptions.split(",") if (network := _network(entry))
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        return None
