"""A site's configuration: what stands in its ``site.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from clients.site.limits import LimitsConfig
from clients.site.policy import PolicyConfig
from clients.site.privacy_budget import PrivacyConfig
from f2l_fed.core.addresses import split_address
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.device import DEVICES
from f2l_fed.core.validation import choice, require, share
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.labels import label_key
from f2l_fed.errors import ConfigError
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.wire.enrolment import NAME_RULE, is_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The connection of the site's daemon to the server.

    Args:
        address: ``host:port``; "" where no daemon is run.
        root_certificates: PEM file of the authority that has signed the server's certificate,
            relative to the configuration's folder; "" trusts the system's authorities.
        private_key: File of the site's own key in OpenSSH format; "" where the server does not
            authenticate its sites.
        certificate: The site's certificate in PEM format, which the server's gateway asks for;
            "" where the server has no gateway.
        certificate_key: Private key of the certificate.
        insecure: Connects without TLS: on one machine, or inside a tunnel.
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
                "insecure excludes keys and certificates",
                where="insecure",
                remedy="Remove insecure, or all of the others.",
            )

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The two parts of the address; port 0 where it is invalid or empty."""
        try:
            return split_address(self.address, "address")
        except ConfigError:
            return "", 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(ReadingConfig):
    """The site's own data, and how they are read.

    Args:
        path: File or folder of labelled examples, relative to the configuration's folder.
    """

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """The configuration of a site.

    Args:
        name: The site's name in the federation.
        data: The labelled examples; a mere path stands for a section with nothing else.
        validation: Further examples to measure on; "" keeps a share of ``data`` aside.
        validation_fraction: Share of every class that is kept aside.
        labels: The labels in the order of the network's outputs, as a list or separated by commas;
            none takes whole numbers from 0 as they are and numbers others in sorted order. Where
            heads are generated, labels without examples get no output.
        state: Folder for all that the site keeps, relative likewise.
        policy: Limits on what leaves.
        privacy: Differential privacy of what leaves.
        server: Connection to the server.
        backbone: The pretrained, frozen network of a federation that adapts one.
        limits: Limits on what the daemon takes of this machine.
        device: Device of the site's training and of what it draws: "cpu", "cuda", or "auto" for the
            GPU where there is one.
        page: Port of the daemon's own page, on loopback; 0 for none.
        page_data: Whether that page, which every account of this machine can read, also shows a
            few examples.
    """

    name: str
    data: DataConfig
    validation: str = ""
    validation_fraction: float = 0.2
    labels: tuple[str, ...] = ()
    state: str = "state"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    device: str = "cpu"
    page: int = 0
    page_data: bool = False

    def __post_init__(self) -> None:
        require(is_name(self.name), self, "name", NAME_RULE)
        for name in ("validation", "state"):
            require("\0" not in getattr(self, name), self, name, "a path without a zero byte")
        require("\0" not in self.data.path, self.data, "path", "a path without a zero byte")
        share(self, "validation_fraction")
        choice(self, "device", DEVICES)
        require(0 <= self.page < 2**16, self, "page", "a port, or 0 for none")
        keys = [label_key(name) for name in self.labels]
        require(len(set(keys)) == len(keys), self, "labels", "different names")


def read_config(path: Path) -> SiteConfig:
    """Reads ``site.toml``; raises ConfigError if it is invalid."""
    if path.is_dir():
        raise ConfigError(
            "this is a folder",
            where=str(path),
            expected="the site's configuration",
            remedy=f"Give {path / 'site.toml'}.",
        )
    try:
        # Some editors begin a file with a mark of its encoding.
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "the site's configuration can't be read",
            where=str(path),
            got=getattr(error, "strerror", None) or str(error),
        ) from error
    if isinstance(values.get("data"), str):
        values["data"] = {"path": values["data"]}
    return from_mapping(SiteConfig, values, where=str(path))
