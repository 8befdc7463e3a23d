"""The zoo that a command names, and the federation around it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError
from f2l_fed.zoo.format.manifest import NAME as ZOO_FILE

if TYPE_CHECKING:
    from f2l_fed.zoo import Zoo
    from server.federation.folder import Federation
    from server.federation.release_registry import ReleaseRegistry

ZooPlace = Annotated[
    str,
    typer.Argument(
        metavar="ZOO", help="Folder, s3://bucket/prefix, or the folder of a federation."
    ),
]
Releases = Annotated[
    Path | None, typer.Option(help="Read the releases in this folder instead of the federation's.")
]


def opened_at(zoo: str) -> Zoo:
    """The zoo itself, or that of the federation in a folder."""
    from f2l_fed.zoo import Zoo

    remote = "://" in zoo
    found = None if remote or (Path(zoo) / ZOO_FILE).exists() else federation_in(Path(zoo))
    return Zoo.open(zoo) if found is None else found.zoo


def federation_in(root: Path) -> Federation | None:
    """The federation in a folder, if there is one."""
    from server.federation.folder import FEDERATION_FILE, Federation

    return Federation.open(root) if (root / FEDERATION_FILE).exists() else None


def home_of(zoo: str) -> Path:
    """The folder that holds a zoo and its releases, in general a federation's."""
    if "://" in zoo:
        raise UsageError(
            "the federation of this zoo is unknown",
            where=zoo,
            remedy="Give its folder in place of the zoo, or that of the releases with --releases.",
        )
    place = Path(zoo).absolute()
    return place.parent if (place / ZOO_FILE).exists() else place


def registry_of(zoo: str, releases: Path | None) -> ReleaseRegistry:
    """The registry of the releases that were fitted on a zoo.

    Raises:
        UsageError: If its folder is unknown.
    """
    from server.federation.release_registry import ReleaseRegistry

    if releases is not None and not releases.is_dir():
        raise UsageError("no such folder", where="--releases", got=str(releases))
    return ReleaseRegistry(releases or home_of(zoo) / "releases")
