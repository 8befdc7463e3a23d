"""A site: its configuration, its private examples, its state folder."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clients.data import Source
from clients.limits import LimitsConfig
from clients.policy import PolicyConfig, SentLog
from clients.privacy import Budget, PrivacyConfig
from f2l_fed.config import from_mapping
from f2l_fed.data import Dataset
from f2l_fed.errors import ConfigError, DataError
from f2l_fed.rules import require, share
from f2l_fed.seeds import generator_for

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Inputs (n, *input_shape) float32 and labels (n,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An opened site.

    Args:
        config: Its configuration.
        train: Examples to learn from.
        validation: Examples to measure on; never learned from.
        labels: What the network's outputs mean; empty where they are numbers in the data too.
        state: Its state folder.
    """

    config: SiteConfig
    train: Examples
    validation: Examples
    labels: tuple[str, ...]
    state: Path

    @property
    def sent(self) -> SentLog:
        """The record of everything that left."""
        return sent_log(self.state)

    @property
    def budget(self) -> Budget | None:
        """The privacy budget; None where what leaves is not noised."""
        return budget(self.config, self.state)

    def require_fit(self, input_shape: tuple[int, ...], classes: int) -> None:
        """Raises DataError unless the examples suit the network."""
        where = f"site {self.config.name}"
        if tuple(self.train.x.shape[1:]) != input_shape:
            raise DataError(
                "the site's inputs have another shape than the network's",
                where=where,
                expected=str(input_shape),
                got=str(tuple(self.train.x.shape[1:])),
            )
        most = max(int(self.train.y.max()), int(self.validation.y.max())) + 1
        if most > classes:
            raise DataError(
                "the site has more classes than the network has outputs",
                where=where,
                expected=f"at most {classes}",
                got=str(most),
                remedy="Where labels are no output numbers, name them under labels in site.toml.",
            )


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


def open_site(path: Path) -> Site:
    """Opens the site of a ``site.toml``: reads its examples and makes its state folder.

    Raises:
        ConfigError: If the configuration can't stand.
        DataError: If the examples can't be used.
    """
    config = read_config(path)
    train, validation, labels = read_examples(path.parent, config)
    state = path.parent / config.state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Site(config=config, train=train, validation=validation, labels=labels, state=state)


def read_examples(folder: Path, config: SiteConfig) -> tuple[Examples, Examples, tuple[str, ...]]:
    """The examples to learn from, those to measure on, and the names of the outputs.

    Args:
        folder: The configuration's folder.
        config: What it says.

    Raises:
        DataError: If they can't be used.
    """
    source = Source.read(folder / config.data)
    labels = config.label_names or source.labels
    data = _examples(source.numbered(labels))
    if not config.validation:
        return *_keep_aside(data, config), labels
    further = Source.read(folder / config.validation)
    validation = _examples(further.numbered(labels))
    if validation.x.shape[1:] != data.x.shape[1:]:
        raise DataError(
            "the validation examples have another shape",
            where=further.where,
            expected=str(tuple(data.x.shape[1:])),
            got=str(tuple(validation.x.shape[1:])),
        )
    return data, validation, labels


def sent_log(state: Path) -> SentLog:
    """The audit log in a state folder."""
    return SentLog(state / "sent.jsonl")


def budget(config: SiteConfig, state: Path) -> Budget | None:
    """The privacy budget of a site; None where what leaves is not noised."""
    return Budget(config=config.privacy, state=state) if config.privacy.epsilon else None


def _examples(dataset: Dataset) -> Examples:
    return Examples(x=torch.from_numpy(dataset.x), y=torch.from_numpy(dataset.y))


def _keep_aside(data: Examples, config: SiteConfig) -> tuple[Examples, Examples]:
    """A fixed share of every class: at least one example, but never the last to learn from."""
    rng = generator_for(config.name, "validation")
    order = torch.randperm(len(data.y), generator=rng)
    aside = []
    for label in data.y.unique().tolist():
        members = order[data.y[order] == label]
        wanted = max(round(config.validation_fraction * len(members)), 1)
        aside.append(members[: min(wanted, len(members) - 1)])
    kept = torch.cat(aside)
    rest = torch.ones(len(data.y), dtype=torch.bool)
    rest[kept] = False
    if not len(kept):
        raise DataError("no class has two examples", where=f"site {config.name}")
    return Examples(x=data.x[rest], y=data.y[rest]), Examples(x=data.x[kept], y=data.y[kept])
