"""The registry of a federation's releases: their records, their files, and which one sites get.

One file, ``promoted``, says which release sites get; it is replaced in one step, and so a process
that dies at any point leaves one promoted release and not two or none. The state in a release's own
record follows, and gives way where it disagrees.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from f2l_fed.core.dense_tensors import all_finite
from f2l_fed.core.durable_files import fsync_folder, write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import ReleaseError
from f2l_fed.generator.fit import GeneratorFit
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.serialization import (
    damaged_matrix,
    load_generator,
    load_matrix,
    load_part,
    save_generator,
    save_matrix,
    tensors_of,
)
from server.federation.release import Release, State

_POINTER = "promoted"


class ReleaseRegistry:
    """The releases in a folder, which any number of processes may use.

    Args:
        path: Created when the first release is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def ids(self) -> list[str]:
        """The ids of all releases, oldest first."""
        return sorted(file.parent.name for file in self.path.glob("[0-9]*/release.json"))

    def read(self, id: str) -> Release:
        """Reads a release's record.

        Raises:
            ReleaseError: If there is no such release or its record is damaged.
        """
        return _as_pointed(self._stored(id), self._pointer())

    def _stored(self, id: str) -> Release:
        path = self.path / id / "release.json"
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for key in ("sites", "records", "reasons", "chain", "body_sites", "families"):
                value[key] = tuple(value.get(key, ()))
            value["temperatures"] = tuple((n, t) for n, t in value.get("temperatures", ()))
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
        """Reads a release's record; None if there is no such release."""
        return self.read(id) if id in self.ids() else None

    def promoted(self) -> Release | None:
        """The release that sites get, or None before the first."""
        id = self._pointer()
        return self.read(id) if id else None

    def fitted_on(self, site: str) -> tuple[Release, ...]:
        """The releases with a site's records or its update of the body in them, oldest first."""
        releases = [self.read(id) for id in self.ids()]
        return tuple(one for one in releases if site in one.sites or site in one.body_sites)

    def measured(self) -> Release:
        """The release to measure: the promoted one, or the newest if none is; there must be one."""
        return self.promoted() or self.read(self.ids()[-1])

    def write_candidate(self, release: Release, fit: GeneratorFit) -> Release:
        """Writes a candidate, which no site gets yet; replaces a candidate of the same id.

        Raises:
            ReleaseError: If sites have got a release of this id.
        """
        with self._alone():
            known = self.find(release.id)
            if known is not None and known.state != "candidate":
                raise ReleaseError(
                    "sites have got a release of this name",
                    where=str(self.path / release.id),
                    got=known.state,
                    remedy="Start another round; it makes a release of its own.",
                )
            if known is not None and known.snapshot > release.snapshot:
                raise ReleaseError(
                    "a newer candidate of this name exists already",
                    where=str(self.path / release.id),
                    expected=f"one of commit {known.snapshot} or later",
                    got=f"commit {release.snapshot}",
                )
            return self._write(release, fit)

    def _write(self, release: Release, fit: GeneratorFit) -> Release:
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
        # If the process dies in between, the rest must not be mistaken for a release.
        final.joinpath("release.json").unlink(missing_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        fsync_folder(self.path)
        return release

    def generator(self, id: str) -> Generator:
        """Loads a release's generator."""
        return load_generator(self.path / id / "generator.safetensors")

    def part(self, id: str, name: str) -> Tensor:
        """One tensor of a release's generator; see `f2l_fed.generator.serialization.tensors_of`."""
        return load_part(self.path / id / "generator.safetensors", name)

    def expected(self, id: str) -> Tensor:
        """(n, E, D) float32, the prior's predictions for `Release.records` without their site.

        Raises:
            ReleaseError: If the file is missing or damaged, or made for other sites.
        """
        path, sites = self.path / id / "expected.safetensors", len(self.read(id).sites)
        matrix = load_matrix(path)
        if bool(len(matrix)) != bool(sites) or len(matrix) % max(sites, 1):
            raise damaged_matrix(path, got=f"{len(matrix)} rows for {sites} sites")
        episodes = len(matrix) // sites if sites else 0
        return matrix.view(sites, episodes, matrix.shape[1])

    def promote(self, id: str, *, judged: Release | None = None) -> Release:
        """Makes a release the one that sites get and retires the one before.

        Args:
            id: Id of the release.
            judged: The record that the gate has judged. The stored record must be the same, and
                sites must still get its parent; the generator isn't read again then.

        Raises:
            ReleaseError: If there is no such release, its generator can't be read or is not finite,
                or sites get another release than its parent by now.
        """
        with self._alone():
            release, before = self.read(id), self.promoted()
            now = before.id if before is not None else ""
            if judged is not None and release != judged:
                raise ReleaseError(
                    "the release was replaced while it was judged", where=f"release {id}"
                )
            if judged is not None and release.parent != now:
                raise ReleaseError(
                    "sites have got another release meanwhile",
                    where=f"release {id}",
                    expected=release.parent or "none",
                    got=now or "none",
                )
            if judged is None:
                require_finite(self.generator(id), where=str(self.path / id))
            self._point_at(id)
            if before is not None and before.id != id:
                self._rewrite(before, "retired", before.reasons)
            return self._rewrite(release, "promoted", ())

    def reject(self, id: str, reasons: Sequence[str]) -> Release:
        """Records why the gate rejects a candidate; a release of another state stays as it is."""
        with self._alone():
            release = self.read(id)
            if release.state != "candidate":
                return release
            return self._rewrite(release, "candidate", tuple(reasons))

    def rollback(self) -> Release:
        """Goes back to the parent of the promoted release.

        Raises:
            ReleaseError: If there is nothing to go back to, or it can't be read or is not finite.
        """
        with self._alone():
            now = self.promoted()
            if now is None or not now.parent:
                raise ReleaseError(
                    "no earlier release to go back to",
                    where=str(self.path),
                    got="no release" if now is None else f"{now.id}, the first one",
                )
            before = self.read(now.parent)
            require_finite(self.generator(before.id), where=str(self.path / before.id))
            self._point_at(before.id)
            self._rewrite(now, "retired", ("rolled back",))
            return self._rewrite(before, "promoted", ())

    def _alone(self) -> AbstractContextManager[None]:
        return locked(self.path / "lock")

    def _pointer(self) -> str:
        path = self.path / _POINTER
        try:
            id = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            # A folder from before the file was introduced: the newest record with this state.
            promoted = [id for id in self.ids() if self._stored(id).state == "promoted"]
            return promoted[-1] if promoted else ""
        if not id.isdecimal():
            raise ReleaseError(
                "the file that names the promoted release is damaged",
                where=str(path),
                expected="the number of a release",
                got=ascii(id[:40]),
                remedy="Delete it; then the records of the releases say which release is promoted.",
            )
        return id

    def _point_at(self, id: str) -> None:
        write_atomically(self.path / _POINTER, id + "\n")

    def _rewrite(self, release: Release, state: State, reasons: tuple[str, ...]) -> Release:
        release = dataclasses.replace(release, state=state, reasons=reasons)
        write_atomically(self.path / release.id / "release.json", _dump(release))
        return release


def require_finite(generator: Generator, *, where: str) -> None:
    """Raises ReleaseError if a number of the generator is NaN or infinite."""
    for name, tensor in tensors_of(generator).items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise ReleaseError(
                "the generator is not finite",
                where=where,
                got=name,
                remedy="Keep the release that sites get now.",
            )


def _as_pointed(release: Release, promoted: str) -> Release:
    """The release with the state that follows from the pointer, if a crash left another."""
    if release.id == promoted and release.state != "promoted":
        return dataclasses.replace(release, state="promoted", reasons=())
    if release.id != promoted and release.state == "promoted":
        return dataclasses.replace(release, state="retired")
    return release


def _dump(release: Release) -> str:
    return json.dumps(dataclasses.asdict(release), indent=1, sort_keys=True) + "\n"
