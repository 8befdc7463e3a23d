"""The releases of a federation: generator versions, which one sites get, and their history."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from f2l_fed.artifact import load_generator, load_matrix, save_generator, save_matrix
from f2l_fed.errors import ReleaseError
from f2l_fed.files import fsync_folder, write_atomically
from f2l_fed.generator import Generator, GeneratorFit

State = Literal["candidate", "promoted", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is known of a generator version.

    Args:
        id: Five digits, the round that made it.
        state: A candidate has not passed the gate; one release at a time is promoted.
        parent: The release that was promoted when it was made; "" for the first.
        snapshot: Commit of the zoo it was fitted on.
        sites: The sites whose records it was fitted on.
        records: Keys of these records, as many for each site, in the order of its expected weights.
        anchors: Anchors that the lineage has had; its probes start from the last of them.
        left_out: Sites whose records were left out as outliers, with the reason.
        figures: What the fit and the audit measured.
        reasons: Why the gate held it; empty if promoted.
        parameters: D.
    """

    id: str
    state: State
    parent: str
    snapshot: int
    sites: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    anchors: int = 1
    left_out: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    parameters: int = 0


class ReleaseRegistry:
    """The folder of releases.

    Args:
        path: Created when the first release is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def ids(self) -> list[str]:
        """Known releases, oldest first."""
        return sorted(file.parent.name for file in self.path.glob("[0-9]*/release.json"))

    def read(self, id: str) -> Release:
        """Raises ReleaseError if there is no such release or its record is damaged."""
        path = self.path / id / "release.json"
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for key in ("sites", "records", "reasons"):
                value[key] = tuple(value[key])
            return Release(**value)
        except FileNotFoundError as error:
            raise ReleaseError(
                "no such release",
                where=str(self.path),
                expected=f"one of {', '.join(self.ids()) or 'none yet'}",
                got=id,
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ReleaseError(
                "the release's record is damaged", where=str(path), got=str(error)
            ) from error

    def find(self, id: str) -> Release | None:
        """`read`, or None if there is no such release."""
        return self.read(id) if id in self.ids() else None

    def promoted(self) -> Release | None:
        """The release that sites get, or None before the first."""
        releases = [self.read(id) for id in self.ids()]
        return next((r for r in reversed(releases) if r.state == "promoted"), None)

    def fitted_on(self, site: str) -> tuple[Release, ...]:
        """Releases that learned from a site's records, oldest first."""
        releases = [self.read(id) for id in self.ids()]
        return tuple(release for release in releases if site in release.sites)

    def measured(self) -> Release:
        """The promoted release, or the newest if none is; there must be one."""
        return self.promoted() or self.read(self.ids()[-1])

    def write_candidate(self, release: Release, fit: GeneratorFit) -> Release:
        """Writes a release that no site gets yet; replaces one of the same id."""
        draft = self.path / f".{release.id}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_generator(fit.generator, draft / "generator.safetensors")
        save_matrix(fit.held_out.flatten(0, 1), draft / "expected.safetensors")
        write_atomically(draft / "release.json", _dump(release))
        for file in draft.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        final = self.path / release.id
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        fsync_folder(self.path)
        return release

    def generator(self, id: str) -> Generator:
        """Loads a release's generator."""
        return load_generator(self.path / id / "generator.safetensors")

    def expected(self, id: str) -> Tensor:
        """(n, E, D) float32, what the prior expects of `Release.records` without their site's."""
        matrix = load_matrix(self.path / id / "expected.safetensors")
        return matrix.view(len(self.read(id).sites), -1, matrix.shape[1])

    def promote(self, id: str) -> Release:
        """Makes a release the one that sites get and retires the one before."""
        release = self.read(id)
        before = self.promoted()
        promoted = self._rewrite(release, "promoted", ())
        if before is not None and before.id != id:
            self._rewrite(before, "retired", before.reasons)
        return promoted

    def hold(self, id: str, reasons: Sequence[str]) -> Release:
        """Keeps a candidate from sites and records why."""
        return self._rewrite(self.read(id), "candidate", tuple(reasons))

    def rollback(self) -> Release:
        """Goes back to the parent of the promoted release.

        Raises:
            ReleaseError: If there is nothing to go back to.
        """
        now = self.promoted()
        if now is None or not now.parent:
            raise ReleaseError(
                "there is no earlier release to go back to",
                where=str(self.path),
                got="no release" if now is None else f"{now.id}, the first one",
            )
        before = self._rewrite(self.read(now.parent), "promoted", ())
        self._rewrite(now, "retired", ("rolled back",))
        return before

    def _rewrite(self, release: Release, state: State, reasons: tuple[str, ...]) -> Release:
        release = dataclasses.replace(release, state=state, reasons=reasons)
        write_atomically(self.path / release.id / "release.json", _dump(release))
        return release


def _dump(release: Release) -> str:
    return json.dumps(dataclasses.asdict(release), indent=1, sort_keys=True) + "\n"
