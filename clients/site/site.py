"""A site: a folder with configuration and records, opened with its private examples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from clients.site.site_examples import Examples, SiteExamples, read_site_examples
from clients.site.site_folder import SiteFolder
from f2l_fed.core.private_files import private_folder
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(SiteFolder):
    """A site with its examples.

    Args:
        train: Examples to learn from.
        validation: Examples to measure on; never learned from.
        labels: Meaning of the network's outputs; empty where the data have numbers too.
        encoding: The encoding of a table's columns as features.
    """

    train: Examples
    validation: Examples
    labels: tuple[str, ...]
    encoding: FeatureEncoding = field(default_factory=FeatureEncoding)

    @classmethod
    def load(cls, folder: SiteFolder) -> Site:
        """Reads the examples of a site.

        Raises:
            DataError: If the examples can't be used.
        """
        return cls.of(folder, read_site_examples(folder.path, folder.config))

    @classmethod
    def of(cls, folder: SiteFolder, examples: SiteExamples) -> Site:
        """A site with examples that have been read."""
        return cls(
            file=folder.file,
            config=folder.config,
            train=examples.train,
            validation=examples.validation,
            labels=examples.labels,
            encoding=examples.encoding,
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
        shape = tuple(self.train.x.shape[1:])
        names = self.encoding.features if self.encoding.is_table else ()
        if shape != input_shape:
            raise DataError(
                "the site's inputs have another shape than the network's",
                where=where,
                expected=str(input_shape),
                got=f"{shape}: {', '.join(names)}" if names else str(shape),
                remedy="Under [data] in site.toml, columns names the features in their order, "
                "categories the values of text columns, indicators the columns with a feature for "
                "gaps."
                if names
                else "Under [data] in site.toml, resize and mode change images."
                if len(shape) == 3
                else "Under [data] in site.toml, text_bytes is the length of texts."
                if self.encoding.text_bytes
                else "",
                code="inputs-of-another-shape",
            )
        if self.classes > classes:
            raise DataError(
                "the site has more classes than the network has outputs",
                where=where,
                expected=f"at most {classes}",
                got=str(self.classes),
                remedy="Where labels are no output numbers, name them under labels in site.toml.",
                code="too-many-classes",
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
