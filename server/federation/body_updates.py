"""The updates of the body that sites have returned since a release, until the next one has them.

They are kept for as long as they are needed and no longer: a file for each site, under the release
whose body was trained. A later update of a site replaces its earlier one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import ZooError
from server.federation.file_names import site_digest

Content = TypeVar("Content")

_FIRST = "first"
"""Folder of the updates of the first body, which no release has made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyUpdate:
    """The update of one site.

    Args:
        site: The site.
        round: Number of the round.
        body: (B,) float32, the body after its episodes.
    """

    site: str
    round: int
    body: Tensor


@dataclass(frozen=True, slots=True)
class BodyUpdates:
    """The folder of a federation's body updates.

    Args:
        folder: Created when needed.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path) -> BodyUpdates:
        """The folder in a federation's."""
        return cls(root / "bodies")

    def keep(self, release: str, update: BodyUpdate) -> None:
        """Makes an update durable.

        Args:
            release: The release whose next body was trained; "" for the first body.
            update: The update.
        """
        path = self._path(release, update.site)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = {"site": update.site, "round": str(update.round)}
        write_atomically(path, save({"body": update.body.contiguous(), **_text(about)}), mode=0o600)

    def read(self, release: str) -> list[BodyUpdate]:
        """The updates of a release's next body, by the sites' names.

        Raises:
            ZooError: If a file is damaged.
        """
        found = [
            BodyUpdate(site=site, round=number, body=body)
            for site, number, body in self._each(release, lambda file: file.get_tensor("body"))
        ]
        return sorted(found, key=lambda update: update.site)

    def sites(self, release: str, number: int) -> set[str]:
        """The sites with an update of a release's next body in a round; no body is read.

        Raises:
            ZooError: If a file is damaged.
        """
        each = self._each(release, lambda _: None)
        return {site for site, in_round, _ in each if in_round == number}

    def holds(self, site: str) -> bool:
        """Whether there is an update of a site."""
        return any(self._files(site))

    def forget(self, site: str) -> None:
        """Deletes the updates of a site."""
        for path in self._files(site):
            path.unlink(missing_ok=True)

    def drop_all_but(self, release: str) -> None:
        """Deletes the updates of all other releases' bodies, which are in a release by now."""
        for folder in self.folder.glob("*"):
            if folder.name != (release or _FIRST):
                shutil.rmtree(folder, ignore_errors=True)

    def _each(
        self, release: str, part: Callable[[Any], Content]
    ) -> Iterator[tuple[str, int, Content]]:
        """Site and round of each update of a release's next body, and a part of its file."""
        for path in sorted((self.folder / (release or _FIRST)).glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    site, number = (
                        bytes(file.get_tensor(key).tolist()).decode() for key in ("site", "round")
                    )
                    yield site, int(number), part(file)
            except FileNotFoundError:
                continue  # Erased at this moment.
            except (OSError, SafetensorError, ValueError) as error:
                raise ZooError(
                    "an update of the body can't be read",
                    where=str(path),
                    got=file_fault(error),
                    remedy="Remove the file; the site's next update replaces it.",
                ) from error

    def _files(self, site: str) -> Iterator[Path]:
        """The files of a site, drafts that a killed process left too."""
        return self.folder.glob(f"*/*{site_digest(site)}*")

    def _path(self, release: str, site: str) -> Path:
        return self.folder / (release or _FIRST) / f"{site_digest(site)}.safetensors"


def _text(values: dict[str, str]) -> dict[str, Tensor]:
    return {
        key: torch.tensor(list(value.encode()), dtype=torch.uint8) for key, value in values.items()
    }
