"""A site's folder: its configuration, and the records that the site keeps in its state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clients.site.config import ServerConfig, SiteConfig, read_config
from clients.site.privacy_budget import Budget
from clients.site.sent_log import SentLog


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
        """Reads a ``site.toml``; raises ConfigError if it is invalid."""
        return SiteFolder(file=file, config=read_config(file))

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
