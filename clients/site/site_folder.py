"""The folder of a site: its configuration and records, without its examples.

Nothing here imports torch: commands that only tell about a site don't need it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from clients.site.agreed_scales import with_scales
from clients.site.config import ServerConfig, SiteConfig, read_config
from clients.site.privacy_budget import Budget
from clients.site.sent_log import SentLog

_PROBE_BYTES = 2**16
"""Size of the file by which the state folder is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFolder:
    """The folder of a ``site.toml``, whose examples are not read.

    Args:
        file: The ``site.toml``.
        config: The configuration in it.
    """

    file: Path
    config: SiteConfig

    @classmethod
    def read(cls, file: Path) -> SiteFolder:
        """Reads a ``site.toml`` and the scales agreed on; raises ConfigError if one is invalid."""
        config = read_config(file)
        return SiteFolder(file=file, config=with_scales(config, file.parent / config.state))

    @property
    def path(self) -> Path:
        """The folder itself; the configuration's paths are relative to it."""
        return self.file.parent

    @property
    def state(self) -> Path:
        """The state folder, which may not exist yet."""
        return self.path / self.config.state

    @property
    def server(self) -> ServerConfig:
        """The connection to the server."""
        return self.config.server

    @property
    def sent(self) -> SentLog:
        """The record of everything that left."""
        return SentLog.in_folder(self.state)

    @property
    def budget(self) -> Budget | None:
        """The privacy budget; None where nothing that leaves is noised."""
        privacy = self.config.privacy
        return Budget(config=privacy, state=self.state) if privacy.epsilon else None

    def absolute(self) -> SiteFolder:
        """The same folder by its absolute path, for a process with another working directory."""
        return SiteFolder(file=self.file.absolute(), config=self.config)


def state_problem(state: Path) -> str:
    """The reason why nothing can be written in a state folder, as a sentence; or ""."""
    existing = next(folder for folder in (state, *state.absolute().parents) if folder.exists())
    try:
        with TemporaryFile(dir=existing) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        return f"state: nothing can be written in {existing} ({reason}), so nothing leaves."
    return ""
