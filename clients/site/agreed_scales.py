"""The scales that a federation has agreed on, as a site keeps them in its state folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from clients.site.config import SiteConfig
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data.readers.agreed_scales import Scales, are_scales, scales_digest, scales_text
from f2l_fed.data.readers.config import AGREED
from f2l_fed.errors import ConfigError

FILE = "scales.json"
"""Name of the file in the state folder."""

TOLD_FILE = "scales-told.json"
"""Name of the file there with the site's own figures, as it has told them."""


def kept_scales(state: Path, name: str = FILE) -> Scales:
    """The scales that a site keeps, by column; none where it has not got any.

    Raises:
        ConfigError: If they can't be read.
    """
    path = state / name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scales = {
            str(name): (float(mean), float(spread)) for name, (mean, spread) in values.items()
        }
        if not are_scales(scales, constant=name == TOLD_FILE):
            raise ValueError("no scales")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError(
            "the scales agreed on can't be read",
            where=str(path),
            remedy="Remove the file, then run f2l-site data scales.",
        ) from error
    return scales


def keep_scales(state: Path, scales: Scales, name: str = FILE) -> None:
    """Keeps the scales agreed on; raises ConfigError where others are kept already."""
    kept = kept_scales(state, name)
    if kept and scales_digest(kept) != scales_digest(scales):
        raise ConfigError(
            "the federation has agreed on other scales than those that are kept here",
            where=str(state / name),
            remedy="Ask the administrator. Networks made with the former ones need them: use "
            "another state folder for the new ones.",
        )
    write_atomically(state / name, scales_text(scales))


def with_scales(config: SiteConfig, state: Path) -> SiteConfig:
    """A configuration with the kept scales where it asks for the agreed ones and names none itself.

    Raises:
        ConfigError: As of `kept_scales`.
    """
    if config.data.scale != AGREED or config.data.scales:
        return config
    return replace(config, data=replace(config.data, scales=kept_scales(state)))
