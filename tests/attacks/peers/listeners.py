"""The ports that processes listen on: what any account of the machine can try to reach.

A new interface shows up here first; ask then what another account can do with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"


def listening(pids: Iterable[int]) -> list[int]:
    """The TCP ports, IPv4 and IPv6, that these processes listen on, sorted."""
    own = set()
    for pid in pids:
        with suppress(OSError):  # ended meanwhile
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    own.update(re.findall(r"socket:\[(\d+)\]", str(handle.readlink())))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in own:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)
