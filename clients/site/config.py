"""TODO."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from clients.site.limits import LimitsConfig
from clients.site.policy import PolicyConfig
from clients.site.privacy_budget import PrivacyConfig
from f2l_fed.core.addresses import _ADDRESS
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.validation import require, share
from f2l_fed.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How the site's daemon reaches the server.

    Args:
        address: ``host:port``; "" where no daemon is run.
        root_certificates: PEM file of the authority that vouches for the server, relative to the
            configuration's folder; "" trusts the system's authorities.
        private_key: File of the site's own key in OpenSSH format; "" where the server knows its
            sites by nothing.
        certificate: The site's certificate in PEM format, which opens the server's front; ""
            where the server has none.
        certificate_key: Its private key.
        insecure: Talks without TLS: on one machine, or inside a tunnel.
    """

    address: str = ""
    root_certificates: str = ""
    private_key: str = ""
    certificate: str = ""
    certificate_key: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        require(not self.address or self.host_and_port[1] > 0, self, "address", "host:port")
        pair = bool(self.certificate) == bool(self.certificate_key)
        require(pair, self, "certificate_key", "a file where there is a certificate, and only then")
        if self.insecure and (self.certificate or self.root_certificates or self.private_key):
            raise ConfigError(
                "insecure can't stand beside keys or certificates",
                where="insecure",
                remedy="Remove insecure, or all of the others.",
            )

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The two parts of the address; port 0 where it isn't one."""
        match = _ADDRESS.fullmatch(self.address)
        port = int(match[2]) if match else 0
        return (match[1].strip("[]"), port) if match and port < 2**16 else ("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """What ``site.toml`` says.

    Args:
        name: The site's name in the federation.
        data: File or folder of labelled examples, relative to the configuration's folder.
        validation: Further examples to measure on; "" keeps a share of ``data`` aside.
        validation_fraction: That share.
        labels: The labels in the order of the network's outputs, separated by commas; "" takes
            whole numbers from 0 as they are and numbers others in sorted order.
        state: Folder for what the site keeps, relative likewise.
        policy: What may leave.
        privacy: How far what leaves hides every single example.
        server: Where to.
        limits: What the daemon may take of this machine.
        page: Port of the daemon's own page, on loopback; 0 for none.
    """

    name: str
    data: str
    validation: str = ""
    validation_fraction: float = 0.2
    labels: str = ""
    state: str = "state"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    page: int = 0

    def __post_init__(self) -> None:
        fits = _NAME.fullmatch(self.name) is not None
        require(fits, self, "name", "1 to 63 of a-z, 0-9 and '-', not starting with '-'")
        share(self, "validation_fraction")
        require(0 <= self.page < 2**16, self, "page", "a port, or 0 for none")
        names = self.label_names
        require(len(set(names)) == len(names), self, "labels", "different names")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The configured labels, one by one."""
        return tuple(name.strip() for name in self.labels.split(",") if name.strip())


def read_config(path: Path) -> SiteConfig:
    """Reads ``site.toml``; raises ConfigError if it can't stand."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "can't read the site's configuration",
            where=str(path),
            got=getattr(error, "strerror", None) or str(error),
        ) from error
    return from_mapping(SiteConfig, values, where=str(path))
