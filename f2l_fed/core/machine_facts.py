"""Facts about this machine for people who help from afar: versions, room, proxies."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import f2l_fed
from f2l_fed.core.proxies import proxy_to, without_user
from f2l_fed.core.support_page import Section
from f2l_fed.core.wording import number_of
from f2l_fed.errors import ConfigError

_PACKAGES = ("torch", "flwr", "ray", "grpcio", "protobuf", "cryptography", "numpy")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = "no_proxy"
_GIB = 2.0**30
_SHARED_MEMORY = Path("/dev/shm")
_LITTLE_BYTES = 2**30


def version_section() -> Section:
    """The versions of the program and what it stands on."""
    return Section(
        "versions",
        (
            ("f2l-fed", f2l_fed.__version__),
            ("python", f"{platform.python_version()}, {sys.executable}"),
            *((name, _version(name)) for name in _PACKAGES),
            ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
            ("terminal", f"{sys.stdout.encoding or 'unknown'}, {_language()}"),
        ),
    )


def room_section(folders: Mapping[str, Path]) -> Section:
    """Free room on the disks under some folders, in shared memory, and in main memory.

    Args:
        folders: The folders by name; of one that is absent, the nearest that exists counts.
    """
    places = {
        **folders,
        "temporary files": Path(tempfile.gettempdir()),
        "shared memory": _SHARED_MEMORY,
        "home": Path("~").expanduser(),
    }
    rows = [(name, _room(path)) for name, path in places.items()]
    rows.append(("memory", _memory()))
    rows.append(("processors", str(len(os.sched_getaffinity(0)))))
    return Section("room", tuple(rows))


def proxy_section(host: str, port: int) -> Section:
    """The proxies that the environment names, without users and passwords, and the one that counts.

    Args:
        host: The host that is to be reached; "" for none.
        port: Its port.
    """
    found = {
        name.lower(): value if name.lower() == _EXCEPTIONS else without_user(value)
        for name, value in sorted(os.environ.items())
        if name.lower() in (*_PROXIES, _EXCEPTIONS) and value
    }
    rows = list(found.items())
    if found and host:
        rows.append(("to the server", way_to(host, port)))
    return Section("proxies in the environment", tuple(rows))


def way_to(host: str, port: int) -> str:
    """The way that connections to a host and port take: direct, or through a proxy."""
    try:
        proxy = proxy_to(host, port)
    except ConfigError as error:
        return str(error)
    return f"through the proxy {proxy.address}" if proxy else "direct"


def clock_section(now: datetime, ahead_s: float | None) -> Section:
    """This machine's time, and how far it is ahead of the server's.

    Args:
        now: The time, with a time zone.
        ahead_s: The difference; None where it is unknown.
    """
    known = "unknown: the server was not asked" if ahead_s is None else f"{ahead_s:+.1f} s"
    return Section(
        "clocks",
        (
            ("here", f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, zone {now.astimezone():%z}"),
            ("ahead of the server", known),
        ),
    )


def days_left(end: datetime, now: datetime) -> str:
    """The end of a validity with its days left, both times with a zone.

    >>> days_left(datetime(2030, 1, 3, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    '2 days left, until 2030-01-03'
    """
    days = (end - now).total_seconds() / 86400
    left = number_of(round(days), "day")
    return f"{left} left, until {end:%Y-%m-%d}" if days > 0 else f"ended on {end:%Y-%m-%d}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _language() -> str:
    return os.environ.get("LC_ALL") or os.environ.get("LANG") or "no language set"


def _room(path: Path) -> str:
    existing = next((one for one in (path, *path.absolute().parents) if one.exists()), path)
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    little = ", LITTLE" if free < _LITTLE_BYTES else ""
    writable = "" if os.access(existing, os.W_OK) else ", NOT WRITABLE"
    return f"{free / _GIB:.1f} GiB free in {path}{little}{writable}"


def _memory() -> str:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    kib = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    available, total = (kib.get(name, 0) / 2**20 for name in ("MemAvailable", "MemTotal"))
    return f"{available:.1f} of {total:.1f} GiB available"
