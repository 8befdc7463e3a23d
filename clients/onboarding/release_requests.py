"""A site's requests for the release: the compact generator as a file, and whether it is current.

Nothing of the site is in them but its certificate. A download that was cut off goes on where it
ended, as long as the server still has the same file, and takes the place of the file before only
once its digest is right and it can be read.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Callable
from datetime import datetime

from clients.onboarding.network_requests import (
    ServerUnavailable,
    answer_of,
    failure_of,
    known_tls,
)
from clients.site.release_store import KeptRelease, kept_release, partial_release
from clients.site.site_folder import SiteFolder
from f2l_fed.core.locks import locked
from f2l_fed.core.private_files import private_folder
from f2l_fed.errors import F2LError, PolicyRefusal, ReleaseError, WireError
from f2l_fed.generator.release_file import ReleaseFile
from f2l_fed.wire.enrolment import RELEASE_PATH, RELEASE_TAG

_PIECE_BYTES = 2**20
_LARGEST_REASON = 2**16
_AGAIN = "Run it again; it goes on where it ended."
_WITHDRAWN = {
    403: "the federation keeps its generator at the centre by now",
    409: "the federation has no release by now",
}
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/\d{1,15}")


def fetch_release(
    site: SiteFolder, *, now: datetime, told: Callable[[int, int], None] = lambda *_: None
) -> tuple[KeptRelease, bool]:
    """Fetches the file of the promoted release, unless the site has it.

    Args:
        site: The site.
        now: This machine's time, with a time zone.
        told: Called with the bytes that have arrived, and with all of them.

    Returns:
        The release, and whether anything was fetched.

    Raises:
        PolicyRefusal: If the site's policy forbids it.
        UsageError: If another process fetches it.
        ServerUnavailable: If the server can't be reached, or breaks off; the part that has arrived
            stays.
        F2LError: If the server refuses, or the file is too large, or damaged; what the site has
            stays.
    """
    if not site.config.policy.release_to_sites:
        raise PolicyRefusal("release-not-allowed")
    private_folder(site.state)
    problem = "another process fetches the release"
    with locked(site.state / "release.lock", wait=False, what=problem):
        kept = kept_release(site.state)
        if kept is not None and not kept.is_sound(kept.path):
            kept = None
        found = _arrived(site, now, kept, told)
        if found is None:
            # The part is of a file that the server has no more, or all of it is there already.
            found = _arrived(site, now, kept, told)
        if found is None:
            raise WireError("the server's answer is no part of the release")
        return found, found != kept


def why_not_current(site: SiteFolder, kept: KeptRelease, *, now: datetime) -> str:
    """The reason that a fetched release is not the one that sites get now; "" where it is.

    Raises:
        ServerUnavailable: If the server can't be reached.
        F2LError: If it does not know the site.
    """
    headers = {"if-none-match": kept.tag}
    tls = known_tls(site, now=now)
    with answer_of(site, tls, "HEAD", RELEASE_PATH, headers=headers) as answer:
        status = answer.status
    if status == 304:
        return ""
    if status == 200:
        return f"release {kept.id} was replaced"
    if status in _WITHDRAWN:
        return _WITHDRAWN[status]
    raise failure_of(site, status, b"")


def _arrived(
    site: SiteFolder,
    now: datetime,
    kept: KeptRelease | None,
    told: Callable[[int, int], None],
) -> KeptRelease | None:
    """The release after one request; None where it has to be asked for anew, from the start."""
    part = partial_release(site.state)
    headers = {} if kept is None else {"if-none-match": kept.tag}
    begun = 0
    if part is not None and (begun := part.part.stat().st_size):
        headers |= {"range": f"bytes={begun}-", "if-range": part.tag}
    with answer_of(site, known_tls(site, now=now), "GET", RELEASE_PATH, headers=headers) as answer:
        status, tag = answer.status, RELEASE_TAG.fullmatch(answer.getheader("etag", ""))
        if status == 304 and kept is not None:
            return kept
        if status == 416 and part is not None:
            part.part.unlink(missing_ok=True)
            return None
        if status not in (200, 206):
            raise failure_of(site, status, answer.read(_LARGEST_REASON))
        if tag is None:
            raise WireError("the server does not name the release that it sends")
        release = KeptRelease(folder=site.state, id=tag[1], digest=tag[2])
        if status == 206 and (release != part or _start(answer) != begun):
            if part is not None:
                part.part.unlink(missing_ok=True)
            return None
        begun = begun if status == 206 else 0
        size = begun + _length(answer)
        most = site.config.policy.maximum_download_bytes
        if size > most:
            raise F2LError(
                "the release is larger than this site takes",
                where="[policy] maximum_download_bytes",
                expected=f"at most {most} B",
                got=f"{size} B",
            )
        _receive(answer, release, begun, size, told)
    _accept(release)
    return release


def _receive(
    answer: http.client.HTTPResponse,
    release: KeptRelease,
    begun: int,
    size: int,
    told: Callable[[int, int], None],
) -> None:
    """Appends what arrives to the part of a release, or begins a new one."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if begun else os.O_TRUNC)
    done = begun
    try:
        file = os.fdopen(os.open(release.part, flags, 0o600), "wb")
    except OSError as error:
        raise _no_room(release, error) from error
    with file:
        while piece := answer.read(_PIECE_BYTES):
            try:
                file.write(piece)
                file.flush()
            except OSError as error:
                raise _no_room(release, error) from error
            done += len(piece)
            if done > size:
                # Pieces of their own sizes ("chunked") may be more than the answer says.
                raise WireError("the server sends more than the size that it tells")
            told(done, size)
    if done < size:
        raise ServerUnavailable(
            "the release has arrived in part", expected=f"{size} B", got=f"{done} B", remedy=_AGAIN
        )


def _accept(release: KeptRelease) -> None:
    """Makes what has arrived the site's release; what is damaged is removed and refused."""
    sound = release.is_sound(release.part)
    try:
        if not sound:
            raise ReleaseError("another digest than the server has named")
        ReleaseFile.read(release.part)
    except ReleaseError as error:
        release.part.unlink(missing_ok=True)
        raise ReleaseError(
            "the release is damaged; the site keeps what it had",
            where=f"release {release.id}",
            got=error.got or error.what,
            remedy="Run it again; if that does not help, tell the administrator.",
        ) from error
    release.finish()


def _length(answer: http.client.HTTPResponse) -> int:
    told = answer.getheader("content-length", "")
    if not told.isdecimal():
        raise WireError("the server does not tell the size of the release")
    return int(told)


def _start(answer: http.client.HTTPResponse) -> int:
    """The place in the file where an answer begins; -1 where it does not tell."""
    found = _RANGE.fullmatch(answer.getheader("content-range", ""))
    return int(found[1]) if found else -1


def _no_room(release: KeptRelease, error: OSError) -> F2LError:
    return F2LError(
        "the release can't be written",
        where=str(release.part),
        got=error.strerror or str(error),
        remedy=f"Make room. {_AGAIN}",
    )
