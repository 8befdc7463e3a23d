"""A site: its configuration, its private examples, its state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clients.data.examples import ExampleSource
from clients.site.config import SiteConfig, read_config
from clients.site.privacy_budget import Budget
from clients.site.sent_log import SentLog
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data import Dataset
from f2l_fed.errors import DataError


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
    source = ExampleSource.read(folder / config.data)
    labels = config.label_names or source.labels
    data = _examples(source.numbered(labels))
    if not config.validation:
        return *_keep_aside(data, config), labels
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
