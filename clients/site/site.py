"""A site: its folder with configuration and records, and once opened its private examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clients.data.examples import ExampleSource
from clients.site.config import ServerConfig, SiteConfig, read_config
from clients.site.privacy_budget import Budget
from clients.site.sent_log import SentLog
from f2l_fed.core.private_files import private_folder
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import Dataset
from f2l_fed.errors import DataError


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Labelled examples: inputs (n, *input_shape) float32 and labels (n,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(SiteFolder):
    """A site with its examples.

    Args:
        train: Examples to learn from.
        validation: Examples to measure on; never learned from.
        labels: Meaning of the network's outputs; empty where the data have numbers too.
    """

    train: Examples
    validation: Examples
    labels: tuple[str, ...]

    @classmethod
    def load(cls, folder: SiteFolder) -> Site:
        """Reads the examples of a site.

        Raises:
            DataError: If the examples can't be used.
        """
        train, validation, labels = _read_examples(folder.path, folder.config)
        return cls(
            file=folder.file,
            config=folder.config,
            train=train,
            validation=validation,
            labels=labels,
        )

    @property
    def classes(self) -> int:
        """The number of labels up to the highest one, at least 1."""
        return max(int(self.train.y.max()), int(self.validation.y.max())) + 1

    def with_own_classes(self) -> Site:
        """The site with the classes that it has numbered from 0, in the order of their labels."""
        known = torch.cat([self.train.y, self.validation.y]).unique()
        names = self.labels
        if not names and len(known) < self.classes:
            names = tuple(map(str, range(self.classes)))
        return replace(
            self,
            train=Examples(x=self.train.x, y=torch.searchsorted(known, self.train.y)),
            validation=Examples(
                x=self.validation.x, y=torch.searchsorted(known, self.validation.y)
            ),
            labels=tuple(names[label] for label in known.tolist()) if names else (),
        )

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
        if self.classes > classes:
            raise DataError(
                "the site has more classes than the network has outputs",
                where=where,
                expected=f"at most {classes}",
                got=str(self.classes),
                remedy="Where labels are no output numbers, name them under labels in site.toml.",
            )


def open_site(path: Path) -> Site:
    """Opens the site of a ``site.toml``: reads its examples and makes its state folder.

    Raises:
        ConfigError: If the configuration is invalid.
        DataError: If the examples can't be used.
    """
    site = Site.load(SiteFolder.read(path))
    private_folder(site.state)
    return site


def _read_examples(folder: Path, config: SiteConfig) -> tuple[Examples, Examples, tuple[str, ...]]:
    """The examples to learn from, those to measure on, and the names of the outputs."""
    source = ExampleSource.read(folder / config.data)
    labels = config.label_names or source.labels
    data = _examples(source.numbered(labels))
    if not config.validation:
        return *_split(data, config), labels
    further = ExampleSource.read(folder / config.validation)
    validation = _examples(further.numbered(labels))
    if validation.x.shape[1:] != data.x.shape[1:]:
        raise DataError(
            "the validation examples have another shape",
            where=further.where,
            expected=str(tuple(data.x.shape[1:])),
            got=str(tuple(validation.x.shape[1:])),
        )
    return data, validation, labels


def _examples(dataset: Dataset) -> Examples:
    return Examples(x=torch.from_numpy(dataset.x), y=torch.from_numpy(dataset.y))


def _split(data: Examples, config: SiteConfig) -> tuple[Examples, Examples]:
    """A fixed share of every class as validation examples: at least one, but never the last."""
    rng = generator_for(config.name, "validation")
    order = torch.randperm(len(data.y), generator=rng)
    held_out = []
    for label in data.y.unique().tolist():
        members = order[data.y[order] == label]
        count = max(round(config.validation_fraction * len(members)), 1)
        held_out.append(members[: min(count, len(members) - 1)])
    validation = torch.cat(held_out)
    rest = torch.ones(len(data.y), dtype=torch.bool)
    rest[validation] = False
    if not len(validation):
        raise DataError("no class has two examples", where=f"site {config.name}")
    return (
        Examples(x=data.x[rest], y=data.y[rest]),
        Examples(x=data.x[validation], y=data.y[validation]),
    )
