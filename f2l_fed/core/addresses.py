"""TODO."""

from __future__ import annotations

import re

from f2l_fed.errors import ConfigError

_ADDRESS = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)


def split_address(text: str, where: str) -> tuple[str, int]:
    """Host and port of ``host:port``.

    >>> split_address("[::1]:80", "listen")
    ('::1', 80)
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) >= 2**16:
        raise ConfigError("no address", where=where, expected="host:port", got=ascii(text[:80]))
    return match[1].strip("[]"), int(match[2])
