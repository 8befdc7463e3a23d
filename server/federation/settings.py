"""The settings of a federation, read from ``federation.toml``, created and refreshed after edits.

The section ``[server]`` holds `ServerSettings`; everything else is a
`f2l_fed.config.FederationConfig`. Keys that decide which networks can be compared are fixed once a
site has registered; the rest may be edited and takes effect at the next start of the server.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from f2l_fed.config import FederationConfig, config_of, new_values
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import ConfigError
from f2l_fed.targets.auto import chosen_target
from server.federation.folder import FEDERATION_FILE, Federation
from server.federation.server_settings import ServerSettings
from server.federation.settings_file import settings_text

SETTINGS_FILE = "federation.toml"

_FIXED = ("seed", "shared_labels", "labels", "features", "target", "probe")


def read_settings(root: Path) -> ServerSettings:
    """The ``[server]`` section of a federation's folder; the defaults where there is no file.

    Raises:
        ConfigError: If the file is damaged, or a value is invalid.
    """
    return _server_of(_read(root / SETTINGS_FILE), root / SETTINGS_FILE)


def create(
    root: Path, values: dict[str, Any], overrides: list[str], server: dict[str, Any], where: str
) -> tuple[Federation, ServerSettings]:
    """Lays out a federation with its ``federation.toml``.

    Args:
        root: A folder without one.
        values: The content of a configuration file, with its ``[server]`` section.
        overrides: ``section.key=value`` texts.
        server: Keys of ``[server]`` from the command line.
        where: The source of the values, for errors.

    Raises:
        ConfigError: If a value is invalid.
        UsageError: If the folder holds a federation.
    """
    section = {**_section(values, where), **server}
    settings = from_mapping(ServerSettings, section, where=f"{where} [server]")
    config = config_of(new_values(values), overrides, where=where)
    config = _checked(config, where)
    federation = Federation.create(root, config)
    write_atomically(root / SETTINGS_FILE, settings_text(settings, config))
    return federation, settings


def refresh(root: Path) -> tuple[Federation, ServerSettings]:
    """Opens a federation's folder and applies edits of its settings.

    Raises:
        ConfigError: If there is no federation, or a value is invalid or fixed.
    """
    federation, path = Federation.open(root), root / SETTINGS_FILE
    values = _read(path)
    settings = _server_of(values, path)
    values.pop("server", None)
    if not values:
        return federation, settings
    config = config_of(values, where=str(path))
    config = _checked(config, str(path))
    settled = federation.scales or federation.last_round()
    if config.scaling != federation.config.scaling and settled and not federation.is_untouched():
        raise ConfigError(
            "scaling is fixed since sites have scales, or a round has begun",
            where=str(path),
            expected=str(federation.config.scaling),
            got=str(config.scaling),
            remedy="Change it back, or create another federation.",
        )
    for name in _FIXED:
        before, now = getattr(federation.config, name), getattr(config, name)
        if before != now and not federation.is_untouched():
            raise ConfigError(
                f"{name} is fixed since a site has registered",
                where=str(path),
                expected=str(before),
                got=str(now),
                remedy="Change it back, or create another federation.",
            )
    if any(getattr(federation.config, name) != getattr(config, name) for name in _FIXED):
        federation.replace_task(config)
    if config != federation.config:
        text = json.dumps(config.to_json(), indent=1) + "\n"
        write_atomically(root / FEDERATION_FILE, text)
    return Federation(root, config), settings


def _checked(config: FederationConfig, where: str) -> FederationConfig:
    """A configuration with the name of a real target, whose labels belong to it."""
    if config.labels and not (config.shared_labels and len(config.labels) == config.target.classes):
        raise ConfigError(
            "labels are named that the federation does not have",
            where=f"{where}: labels",
            expected=f"with shared_labels, a name for each of {config.target.classes} classes",
            got=f"{len(config.labels)} names",
        )
    if config.features and config.target.input_shape != (len(config.features),):
        raise ConfigError(
            "features are named that the inputs do not have",
            where=f"{where}: features",
            expected=f"a name for each number of inputs {list(config.target.input_shape)}",
            got=f"{len(config.features)} names",
        )
    scaling = config.scaling
    if (scaling.sites or scaling.agreed) and len(config.target.input_shape) != 1:
        raise ConfigError(
            "scales are agreed for columns of numbers alone",
            where=f"{where}: scaling",
            expected="inputs that are vectors or rows of tables",
            got=f"inputs {list(config.target.input_shape)}",
        )
    return replace(config, target=chosen_target(config.target))


def read_values(path: Path | None) -> dict[str, Any]:
    """The content of a configuration file; empty for None."""
    return _read(path, required=True) if path else {}


def _read(path: Path, *, required: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise ConfigError("the file is missing", where=str(path)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "can't read the configuration", where=str(path), got=str(error)
        ) from error


def _section(values: dict[str, Any], where: str) -> dict[str, Any]:
    section = values.pop("server", {})
    if not isinstance(section, dict):
        raise ConfigError("server has the wrong type", where=where, expected="a section")
    if "front" in section and "gateway" not in section:
        # The name of this key before; the error of one that is invalid says the new one.
        section = {**section, "gateway": section["front"]}
        del section["front"]
    return section


def _server_of(values: dict[str, Any], path: Path) -> ServerSettings:
    return from_mapping(ServerSettings, _section({**values}, str(path)), where=f"{path} [server]")
