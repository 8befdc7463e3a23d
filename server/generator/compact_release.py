"""The compact generator of a release as the file that its sites may fetch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import ReleaseError
from f2l_fed.generator.compact import FEWEST_SITES, compact
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.release_file import pack_release
from f2l_fed.wire.messages import Task
from server.federation.folder import Federation
from server.generator.release_records import release_records, rows_left

_FILE = "to-sites.safetensors"

_MEASURED = 256
"""Sites, evenly spaced, on whose contexts the directions of whole networks are chosen."""


class NotForSites(ReleaseError):
    """A release whose generator stays at the centre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileForSites:
    """A file that sites may fetch.

    Args:
        path: The file.
        release: Id of the release.
        digest: SHA-256 of its content.
        size: Its bytes.
    """

    path: Path
    release: str
    digest: str
    size: int

    @property
    def tag(self) -> str:
        """Its ``ETag``; see `f2l_fed.wire.enrolment.RELEASE_TAG`."""
        return f'"{self.release}-{self.digest}"'


def file_for_sites(federation: Federation, generator: Generator, task: Task) -> FileForSites:
    """Makes the file of a release, beside the release itself; the same bits for the same records.

    Args:
        federation: The folder.
        generator: Of the release.
        task: The task of its service, without candidates.

    Raises:
        NotForSites: If the federation keeps its generator, or it is of too few sites, of several
            families, or has a codec other than "pca".
        RecordErased: If a site was erased meanwhile.
    """
    config = federation.config
    if not config.release.to_sites:
        raise NotForSites("the federation keeps its generator at the centre")
    release = federation.releases.read(task.release)
    rows = left = rows_left(federation, release)
    if len(left) < FEWEST_SITES:
        raise NotForSites(
            "the release is of too few sites to be given away",
            expected=f"at least {FEWEST_SITES}",
            got=str(len(left)),
        )
    if federation.body is None:
        rows = rows[:: -(-len(rows) // _MEASURED)]
    records = release_records(federation, release, rows)
    try:
        erased = len(left) < len(release.sites)
        small = compact(
            generator, records, sites=len(left), rank=config.release.rank, erased=erased
        )
    except ReleaseError as error:
        raise NotForSites(error.what, expected=error.expected, got=error.got) from error
    candidates = replace(config.candidates, samples=config.release.samples, nearest=False)
    content = pack_release(small, task, candidates, config.release.precision)
    path = federation.releases.path / release.id / _FILE
    write_atomically(path, content, mode=0o600)
    return FileForSites(
        path=path,
        release=release.id,
        digest=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
