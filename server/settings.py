"""``federation.toml``: how a federation's server is run, and what the federation does.

The section ``[server]`` is the service's own and stands here; everything else is a
`f2l_fed.config.FederationConfig`. What decides which networks can be compared is fixed when the
folder is created; the rest may be edited and holds from the next start of the server.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from f2l_fed.config import FederationConfig, config_of, from_mapping
from f2l_fed.errors import ConfigError
from f2l_fed.files import write_atomically
from f2l_fed.rules import choice, positive, require
from server.federation import FEDERATION_FILE, Federation

SETTINGS_FILE = "federation.toml"

_FIXED = ("seed", "shared_labels", "target", "probe")
_HEAD = """\
# A federation. Lines that begin with "# " and a key show what holds where nothing is said.
# Edit it and start the server again. seed, shared_labels, [target] and [probe] are fixed for
# good: networks of other ones can't be compared.
"""
_ADDRESS = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the central service is run.

    Args:
        address: host:port under which sites reach this server; it goes into their kits.
        listen: Address and port of the TLS front for sites. Only loopback until it is changed,
            for instance to "0.0.0.0:8443".
        control: Address and port of the control service for f2l-admin.
        dashboard: Port of the dashboard, always on loopback; 0 for any.
        superlink: Port of Flower's SuperLink, always on loopback; 0 for any.
        enrolment: Port of the service behind /v1/site/, always on loopback; 0 for any.
        front: "built-in", or "external" where an nginx as in deploy/nginx/ stands before
            fixed ports of superlink and enrolment.
        kit_hours: How long a site's kit can be used.
        certificate_days: Validity of a site's certificate; its daemon renews it in time.
        largest_body_bytes: Largest request that a site may send.
        connections: Most connections of sites at a time.
        connections_per_host: Most connections at a time from one address.
    """

    address: str = "localhost:8443"
    listen: str = "127.0.0.1:8443"
    control: str = "127.0.0.1:8770"
    dashboard: int = 8765
    superlink: int = 0
    enrolment: int = 0
    front: str = "built-in"
    kit_hours: int = 72
    certificate_days: int = 90
    largest_body_bytes: int = 2**28
    connections: int = 1000
    connections_per_host: int = 100

    def __post_init__(self) -> None:
        for name in ("address", "listen", "control"):
            split_address(getattr(self, name), name)
        choice(self, "front", ("built-in", "external"))
        for name in ("dashboard", "superlink", "enrolment"):
            require(0 <= getattr(self, name) < 2**16, self, name, "a port, or 0 for any")
        external = self.front == "external"
        require(not external or self.superlink > 0, self, "superlink", "a fixed port")
        require(not external or self.enrolment > 0, self, "enrolment", "a fixed port")
        positive(self, "kit_hours", "certificate_days", "connections", "connections_per_host")
        positive(self, "largest_body_bytes")

    @property
    def host(self) -> str:
        """The host that sites know."""
        return split_address(self.address, "address")[0]


def split_address(text: str, where: str) -> tuple[str, int]:
    """Host and port of ``host:port``.

    >>> split_address("[::1]:80", "listen")
    ('::1', 80)
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) >= 2**16:
        raise ConfigError("no address", where=where, expected="host:port", got=ascii(text[:80]))
    return match[1].strip("[]"), int(match[2])


def read_settings(root: Path) -> ServerSettings:
    """The ``[server]`` section of a federation's folder; the defaults where there is no file.

    Raises:
        ConfigError: If it can't stand.
    """
    return _server_of(_read(root / SETTINGS_FILE), root / SETTINGS_FILE)


def create(
    root: Path, values: dict[str, Any], overrides: list[str], server: dict[str, Any], where: str
) -> tuple[Federation, ServerSettings]:
    """Lays out a federation with its ``federation.toml``.

    Args:
        root: A folder without one.
        values: What a configuration file says; its ``[server]`` section counts too.
        overrides: ``section.key=value`` texts.
        server: Keys of ``[server]`` that were named on the command line.
        where: Where the values are from, for errors.

    Raises:
        ConfigError: If a value can't stand.
        UsageError: If there is a federation in the folder.
    """
    section = {**_section(values, where), **server}
    settings = from_mapping(ServerSettings, section, where=f"{where} [server]")
    config = config_of({**values}, overrides, where=where)
    federation = Federation.create(root, config)
    write_atomically(root / SETTINGS_FILE, _text(settings, config))
    return federation, settings


def refresh(root: Path) -> tuple[Federation, ServerSettings]:
    """Opens a federation's folder and takes over what has been edited in its settings.

    Raises:
        ConfigError: If there is no federation, or a value can't stand or is fixed.
    """
    federation, path = Federation.open(root), root / SETTINGS_FILE
    values = _read(path)
    settings = _server_of(values, path)
    values.pop("server", None)
    if not values:
        return federation, settings
    config = config_of(values, where=str(path))
    for name in _FIXED:
        before, now = getattr(federation.config, name), getattr(config, name)
        if before != now:
            raise ConfigError(
                f"{name} is fixed since the federation was created",
                where=str(path),
                expected=str(before),
                got=str(now),
                remedy="Change it back, or create another federation.",
            )
    if config != federation.config:
        text = json.dumps(config.to_json(), indent=1) + "\n"
        write_atomically(root / FEDERATION_FILE, text)
    return Federation(root, config), settings


def read_values(path: Path | None) -> dict[str, Any]:
    """What a configuration file says; nothing for None."""
    return _read(path, required=True) if path else {}


def _read(path: Path, *, required: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise ConfigError("there is no such file", where=str(path)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "can't read the configuration", where=str(path), got=str(error)
        ) from error


def _section(values: dict[str, Any], where: str) -> dict[str, Any]:
    section = values.pop("server", {})
    if not isinstance(section, dict):
        raise ConfigError("server has the wrong type", where=where, expected="a section")
    return section


def _server_of(values: dict[str, Any], path: Path) -> ServerSettings:
    return from_mapping(ServerSettings, _section({**values}, str(path)), where=f"{path} [server]")


def _text(settings: ServerSettings, config: FederationConfig) -> str:
    lines = [_HEAD, *_plain_keys(config, FederationConfig())]
    lines += ["", "[server]", *_plain_keys(settings, ServerSettings(), shown=("address", "listen"))]
    lines += _sections(config, FederationConfig(), "")
    return "\n".join(lines) + "\n"


def _sections(values: Any, defaults: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(values):
        value, default = getattr(values, field.name), getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            yield from ("", f"[{prefix}{field.name}]")
            if meaning := _meanings(type(values)).get(field.name):
                yield from _comment(meaning)
            yield from _plain_keys(value, default)
            yield from _sections(value, default, f"{prefix}{field.name}.")


def _plain_keys(values: Any, defaults: Any, shown: tuple[str, ...] = ()) -> Iterator[str]:
    meanings = _meanings(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            continue
        yield from _comment(meanings.get(field.name, ""))
        # JSON's strings, numbers and lists are TOML's too.
        line = f"{field.name} = {json.dumps(value, ensure_ascii=False)}"
        same = value == getattr(defaults, field.name) and field.name not in shown
        yield f"# {line}" if same else line


def _comment(text: str) -> Iterator[str]:
    words, line = text.split(), "#"
    for word in words:
        if len(line) + len(word) > 98:
            yield line
            line = "#"
        line += f" {word}"
    if words:
        yield line


def _meanings(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of each field."""
    documented = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    return {
        name: " ".join(text.split())
        for name, text in re.findall(r"^    (\w+): ((?:.|\n {8,})*)", documented, re.M)
    }
