"""The service outside of rounds: what the promoted release makes for a site, and its compact form.

Nothing of a request is kept but an event with the site's name, one for a release. The release that
was opened for one request serves the next ones, until another is promoted or a site is erased.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from f2l_fed import events
from f2l_fed.core.device import device_of
from f2l_fed.errors import F2LError, WireError
from f2l_fed.local_training.site_streams import NO_ROUND
from f2l_fed.wire.messages import ProbeRequest, Task
from f2l_fed.wire.packing import pack_probe_request, pack_task, unpack_probe_reply
from f2l_fed.wire.serialization import from_bytes, to_bytes
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.generator.compact_release import FileForSites, file_for_sites
from server.generator.release_records import while_erasing


class NoRelease(F2LError):
    """A federation has no release yet."""


class NotPromoted(F2LError):
    """A release is not the one that sites get now."""


@dataclass(slots=True, kw_only=True)
class _Served:
    """A release that is open.

    Args:
        factory: Makes candidates.
        request: Its request for a site's context.
        temperatures: Of a site's network.
        sites: Those that were served since it was opened.
        file: The release's file for sites, once one has asked for it.
    """

    factory: CandidateFactory
    request: ProbeRequest
    temperatures: tuple[tuple[int, float], ...]
    sites: set[str] = field(default_factory=set)
    file: FileForSites | None = None

    @property
    def task(self) -> Task:
        """The task of the release, without candidates."""
        federation = self.factory.federation
        return Task(
            frame=federation.service_frame,
            anchor=self.request.anchor,
            round=NO_ROUND,
            release=self.factory.id,
            recipe=federation.config.local,
            candidates=(),
            chain=self.request.chain,
            temperatures=self.temperatures,
            keep=federation.config.candidates.keep,
        )


class NetworkService:
    """The service of one federation; its methods may be called from any threads.

    Args:
        root: The federation's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._served: _Served | None = None
        self._federation: Federation | None = None
        self._fetched: set[tuple[str, str]] = set()

    def context_request(self) -> tuple[str, bytes]:
        """The promoted release's id and its packed request for a site's context.

        Raises:
            NoRelease: If there is none.
        """
        with self._lock:
            served = self._promoted()
            return served.factory.id, to_bytes(pack_probe_request(served.request))

    def task(self, site: str, release: str, reply: bytes) -> bytes:
        """The packed task with what a release makes for a site.

        Args:
            site: The site's name, which it has authenticated.
            release: Id of the release that the context belongs to.
            reply: The packed reply to `context_request`.

        Raises:
            NoRelease: If there is none.
            NotPromoted: If sites get another release by now.
            WireError, LayoutMismatch: If the reply is not one to this request.
        """
        with self._lock:
            served = self._promoted()
            factory = served.factory
            federation = factory.federation
            if factory.id != release:
                raise NotPromoted("sites get another release by now")
            context = _context(federation, reply)
            # A site with a privacy budget sends zeros: nothing is generated for it on the body.
            silent = federation.body is not None and not bool(context.any())
            made = () if silent else (factory.served(site, context),)
            task = replace(served.task, candidates=made)
            if site not in served.sites:
                # Once, however often it asks: a site can't fill the log.
                federation.events().emit(events.SITE_SERVED, site=site, release=release)
                served.sites.add(site)
            return to_bytes(pack_task(task))

    def release_file(self) -> FileForSites:
        """The file with the promoted release's compact generator, made for the first that asks.

        Raises:
            NoRelease: If there is no release.
            NotForSites: If sites may not have it.
        """
        with self._lock:
            served = self._promoted()
            factory = served.factory
            if served.file is None:
                served.file = while_erasing(
                    factory.federation,
                    lambda: file_for_sites(factory.federation, factory.generator, served.task),
                )
            return served.file

    def note_fetched(self, site: str, file: FileForSites) -> None:
        """Writes that a site gets a file, once for each, however often it asks.

        Args:
            site: The site's name, which it has authenticated.
            file: From `release_file`.
        """
        with self._lock:
            if (site, file.tag) in self._fetched:
                return
            self._fetched.add((site, file.tag))
            log = Federation.open(self._root).events()
            log.emit(events.RELEASE_FETCHED, site=site, release=file.release)

    def _promoted(self) -> _Served:
        """The promoted release, opened where it is not open."""
        federation = self._federation or Federation.open(self._root)
        self._federation = federation
        promoted = federation.releases.promoted()
        if promoted is None:
            self._served = None
            raise NoRelease(
                "the federation has no release yet", remedy="Ask again after its next round."
            )
        served = self._served
        if served is None or served.factory.id != promoted.id or not served.factory.is_current():
            self._served = None
            anchor = federation.anchor(promoted)
            # The GPUs may be a cluster's, and this machine have none.
            device = device_of("cpu" if federation.config.ray.device == "cpu" else "auto")
            served = self._served = _Served(
                factory=CandidateFactory.open(federation, promoted.id, device),
                request=ProbeRequest(
                    frame=federation.service_frame,
                    anchor=anchor,
                    chain=federation.chain_to(anchor),
                ),
                temperatures=promoted.temperatures,
            )
        return served


def _context(federation: Federation, reply: bytes) -> Tensor:
    """(D,) float32, the context in a packed reply."""
    told = unpack_probe_reply(
        from_bytes(reply), federation.target.layout, body=federation.body_layout, episodes=1
    )
    # As in admission: nothing finite can be computed from longer ones.
    if len(told.probes) != 1 or not bool(told.probes.square().sum().isfinite()):
        raise WireError("not one context of finite numbers")
    return told.probes[0]
