"""A site: its configuration, its private examples, its state folder."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clients.data import load_examples
from clients.policy import PolicyConfig
from f2l_fed.config import from_mapping
from f2l_fed.data import Dataset
from f2l_fed.errors import ConfigError, DataError
from f2l_fed.rules import share
from f2l_fed.seeds import generator_for


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """What ``site.toml`` says.

    Args:
        name: The site's name in the federation.
        data: File or folder of labelled examples, relative to the configuration's folder.
        validation: Further examples to measure on; "" keeps a share of ``data`` aside.
        validation_fraction: That share.
        state: Folder for what the site keeps, relative likewise.
        policy: What may leave.
    """

    name: str
    data: str
    validation: str = ""
    validation_fraction: float = 0.2
    state: str = "state"
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        share(self, "validation_fraction")


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
        state: Its state folder.
    """

    config: SiteConfig
    train: Examples
    validation: Examples
    state: Path

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
        if int(self.train.y.max()) >= classes:
            raise DataError(
                "the site has more classes than the network has outputs",
                where=where,
                expected=f"at most {classes}",
                got=str(int(self.train.y.max()) + 1),
            )


def read_config(path: Path) -> SiteConfig:
    """Reads ``site.toml``; raises ConfigError if it can't stand."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "can't read the site's configuration", where=str(path), got=str(error)
        ) from error
    return from_mapping(SiteConfig, values, where=str(path))


def open_site(path: Path) -> Site:
    """Opens the site of a ``site.toml``: reads its examples and makes its state folder.

    Raises:
        ConfigError: If the configuration can't stand.
        DataError: If the examples can't be used.
    """
    config = read_config(path)
    data = _examples(load_examples(path.parent / config.data))
    if config.validation:
        train, validation = data, _examples(load_examples(path.parent / config.validation))
    else:
        train, validation = _keep_aside(data, config)
    state = path.parent / config.state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Site(config=config, train=train, validation=validation, state=state)


def _examples(dataset: Dataset) -> Examples:
    return Examples(x=torch.from_numpy(dataset.x), y=torch.from_numpy(dataset.y))


def _keep_aside(data: Examples, config: SiteConfig) -> tuple[Examples, Examples]:
    """A fixed share of every class, at least one example of it where it has two."""
    rng = generator_for(config.name, "validation")
    order = torch.randperm(len(data.y), generator=rng)
    aside = []
    for label in data.y.unique().tolist():
        members = order[data.y[order] == label]
        count = max(round(config.validation_fraction * len(members)), 1) if len(members) > 1 else 0
        aside.append(members[:count])
    kept = torch.cat(aside)
    rest = torch.ones(len(data.y), dtype=torch.bool)
    rest[kept] = False
    if not len(kept):
        raise DataError("no class has two examples", where=f"site {config.name}")
    return Examples(x=data.x[rest], y=data.y[rest]), Examples(x=data.x[kept], y=data.y[kept])
