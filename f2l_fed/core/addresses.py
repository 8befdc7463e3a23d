"""Network addresses in settings: host and port."""

from __future__ import annotations

import re

from f2l_fed.errors import ConfigError

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
