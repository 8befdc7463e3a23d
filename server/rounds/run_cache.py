"""What a run keeps of its sites between messages, on disk, so that memory does not grow with them.

Contexts by anchor, until they are used for candidates; and the starts that a late site was
offered, because its answer can't be screened without them. Nothing here is a record: whatever is
missing is asked for again or measured anew, and the folder is emptied when the run is over.
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


@dataclass(frozen=True, slots=True)
class RunCache:
    """A folder for one run at a time.

    Args:
        folder: Created when needed.
    """

    folder: Path

    @classmethod
    def beside(cls, root: Path) -> RunCache:
        """That of a federation's folder."""
        return cls(root / "spool")

    @property
    def screened(self) -> Path:
        """Folder for what was admitted in this run; see `server.rounds.screening`."""
        return self.folder / "screened"

    def keep_context(self, anchored: str, site: str, probes: Tensor) -> None:
        """Keeps (E, D) float32 probes from an anchor, named by `digest`."""
        self._write(self._path(anchored, site), {"probes": probes})

    def has_context(self, anchored: str, site: str) -> bool:
        """Whether these are known; a file that a loss of power has torn is none."""
        path = self._path(anchored, site)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def contexts(self, anchored: str, sites: tuple[str, ...]) -> Contexts:
        """Those of some sites, read one by one when they are used."""
        return Contexts(self, anchored, sites)

    def keep_offer(self, number: int, site: str, offer: CandidateSet) -> None:
        """Keeps what a site was offered in a round."""
        named = {
            f"{episode}/{kind}": start
            for episode, starts in enumerate(offer)
            for kind, start in starts.items()
        }
        self._write(self._path(f"offers-{number}", site), named)

    def take_offer(self, number: int, site: str) -> CandidateSet | None:
        """Gives it back, once."""
        path = self._path(f"offers-{number}", site)
        tensors = self._read(path)
        if tensors is None:
            return None
        path.unlink(missing_ok=True)
        offer: dict[int, dict[str, Tensor]] = {}
        for name, start in tensors.items():
            episode, _, kind = name.partition("/")
            offer.setdefault(int(episode), {})[kind] = start
        return tuple(offer[episode] for episode in sorted(offer))

    def drop_offer(self, number: int, site: str) -> None:
        """Forgets it."""
        self._path(f"offers-{number}", site).unlink(missing_ok=True)

    def forget(self, site: str) -> None:
        """Deletes what is kept of one site, also what a killed process left half done."""
        for path in self.folder.glob(f"*/{digest_of(site)}*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Deletes everything, but what was admitted in an exchange that failed before its end."""
        for part in self.folder.glob("*"):
            if part != self.screened or not any(part.iterdir()):
                shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, kind: str, site: str) -> Path:
        return self.folder / kind / f"{digest_of(site)}.safetensors"

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
    """(E, D) float32 by site; every look reads a file."""

    spool: RunCache
    anchored: str
    sites: tuple[str, ...]

    def __getitem__(self, site: str) -> Tensor:
        tensors = self.spool._read(self.spool._path(self.anchored, site))
        if tensors is None:
            raise KeyError(site)
        return tensors["probes"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)


def digest(anchored: Tensor) -> str:
    """A name for an anchor."""
    return sha256(anchored.numpy().tobytes()).hexdigest()[:32]


def write_part(path: Path, content: bytes) -> None:
    """Writes a file of the spool: whole for its readers, but not kept through a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(content)
    # It may be erased at this moment.
    with suppress(FileNotFoundError):
        draft.replace(path)


def digest_of(site: str) -> str:
    """What files of a site begin with: a name comes from outside and must not become a path."""
    return sha256(site.encode()).hexdigest()[:32]
