"""The file of a site's kit; its content is described in `f2l_fed.wire.kit`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from f2l_fed.core.wording import file_fault
from f2l_fed.errors import ConfigError
from f2l_fed.wire.kit import LARGEST_KIT_BYTES, Kit


def read_kit(path: Path, *, now: datetime) -> Kit:
    """Reads a kit.

    Args:
        path: The file.
        now: The time, with a time zone.

    Raises:
        ConfigError: If the file can't be read or is not a kit, or the kit was altered or has
            expired.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_KIT_BYTES)
    except OSError as error:
        raise ConfigError(
            "the kit can't be read",
            where=str(path),
            got=file_fault(error),
            remedy="Ask the administrator for it again.",
        ) from error
    return Kit.parse(content, where=str(path), now=now)
