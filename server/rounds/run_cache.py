"""The cache of a run: what sites sent or were sent, on disk, so that memory stays bounded.

It holds contexts by anchor, until they are used for candidates, and the candidates that a late site
was sent, because its update can't be screened without them. Nothing here is a record: whatever is
missing is asked for again or measured again, and the folder is emptied when the run is over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from f2l_fed.local_training.selection import CandidateSet
from server.federation.file_names import site_digest


@dataclass(frozen=True, slots=True)
class RunCache:
    """The folder of the cache, for one run at a time.

    Args:
        folder: Created when needed.
    """

    folder: Path

    @classmethod
    def beside(cls, root: Path) -> RunCache:
        """The cache in a federation's folder."""
        return cls(root / "spool")

    @property
    def screened(self) -> Path:
        """The folder of the submissions admitted in this run; see `server.rounds.screening`."""
        return self.folder / "screened"

    def keep_context(self, anchor: str, site: str, probes: Tensor) -> None:
        """Keeps a site's (E, D) float32 probes from the anchor of a digest; see `anchor_digest`."""
        self._write(self._path(anchor, site), {"probes": probes})

    def has_context(self, anchor: str, site: str) -> bool:
        """Whether a site's probes are known; a file torn by a loss of power does not count."""
        path = self._path(anchor, site)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def contexts(self, anchor: str, sites: tuple[str, ...]) -> Contexts:
        """The probes of some sites, each read when it is used."""
        return Contexts(self, anchor, sites)

    def keep_candidates(self, number: int, site: str, candidates: CandidateSet) -> None:
        """Keeps the candidates that a site was sent in a round."""
        named = {
            f"{episode}/{kind}": start
            for episode, starts in enumerate(candidates)
            for kind, start in starts.items()
        }
        self._write(self._path(f"offers-{number}", site), named)

    def take_candidates(self, number: int, site: str) -> CandidateSet | None:
        """Removes the candidates of a site and returns them; None if there are none."""
        path = self._path(f"offers-{number}", site)
        tensors = self._read(path)
        if tensors is None:
            return None
        path.unlink(missing_ok=True)
        by_episode: dict[int, dict[str, Tensor]] = {}
        for name, start in tensors.items():
            episode, _, kind = name.partition("/")
            by_episode.setdefault(int(episode), {})[kind] = start
        return tuple(by_episode[episode] for episode in sorted(by_episode))

    def drop_candidates(self, number: int, site: str) -> None:
        """Removes the candidates of a site."""
        self._path(f"offers-{number}", site).unlink(missing_ok=True)

    def forget(self, site: str) -> None:
        """Deletes all files of one site, including drafts that a killed process left."""
        for path in self.folder.glob(f"*/{site_digest(site)}*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Deletes everything except the submissions admitted in an exchange that failed."""
        for part in self.folder.glob("*"):
            if part != self.screened or not any(part.iterdir()):
                shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, kind: str, site: str) -> Path:
        return self.folder / kind / f"{site_digest(site)}.safetensors"

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        write_part(path, save({name: t.contiguous().clone() for name, t in tensors.items()}))

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError):
            return None
        return tensors


@dataclass(frozen=True, slots=True)
class Contexts(Mapping[str, Tensor]):
    """(E, D) float32 contexts by site; every look-up reads a file."""

    cache: RunCache
    anchor: str
    sites: tuple[str, ...]

    def __getitem__(self, site: str) -> Tensor:
        tensors = self.cache._read(self.cache._path(self.anchor, site))
        if tensors is None:
            raise KeyError(site)
        return tensors["probes"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)


def anchor_digest(anchor: Tensor) -> str:
    """The digest that names a (D,) float32 anchor in the cache."""
    return sha256(anchor.numpy().tobytes()).hexdigest()[:32]


def write_part(path: Path, content: bytes) -> None:
    """Writes a file of the cache: whole for its readers, but not safe from a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(content)
    # It may be erased at this moment.
    with suppress(FileNotFoundError):
        draft.replace(path)
