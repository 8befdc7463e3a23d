"""Network addresses in settings and requests: host and port."""

from __future__ import annotations

import re
from collections.abc import Collection

from f2l_fed.errors import ConfigError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a machine reaches itself."""

_ADDRESS = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)


def split_address(text: str, where: str) -> tuple[str, int]:
    """Splits ``host:port`` into host and port.

    Args:
        text: The address; an IPv6 host stands in brackets.
        where: File or option, for the error.

    Raises:
        ConfigError: If it is not an address.

    >>> split_address("[::1]:80", "listen")
    ('::1', 80)
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) >= 2**16:
        raise ConfigError(
            "not a valid address", where=where, expected="host:port", got=ascii(text[:80])
        )
    return match[1].strip("[]"), int(match[2])


def is_host_of(header: str, names: Collection[str] = ()) -> bool:
    """Whether the Host header of a request names this machine's loopback or one of some names.

    Args:
        header: The header; its port may be any, as behind a tunnel.
        names: Further host names, in lower case.

    >>> is_host_of("localhost:8765"), is_host_of("[::1]"), is_host_of("localhost.example.org:8765")
    (True, True, False)
    """
    # A port is no part of the question, but where there is none the address needs one.
    complete = header if re.search(r":[0-9]{1,5}$", header.rpartition("]")[2]) else f"{header}:0"
    try:
        host = split_address(complete, "Host")[0].lower()
    except ConfigError:
        return False
    return host in LOOPBACK_NAMES or host in names
