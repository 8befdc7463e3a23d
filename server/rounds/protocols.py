"""The versions of the wire protocol that sites speak, as the rounds need to know them."""

from __future__ import annotations

from typing import Protocol

from f2l_fed.wire.messages import Frame
from f2l_fed.wire.protocol import LATEST, common, spoken_by_site
from server.rounds.messaging import SiteReply


class SiteProtocols(Protocol):
    """The highest version that each site has named, and whether answers may be coded."""

    @property
    def coded(self) -> bool:
        """Whether answers may be coded, where the federation's are worth it."""

    def of(self, site: str, /) -> int:
        """The version of a site."""

    def note(self, site: str, spoken: int, /) -> None:
        """Keeps the version that a site has named in its latest answer."""


class UnregisteredSites:
    """The protocol of sites without a registry, as in a simulation: all speak the latest.

    Nothing is coded, since messages don't go far.
    """

    coded = False

    def of(self, _: str, /) -> int:
        """The latest version."""
        return LATEST

    def note(self, _: str, spoken: int, /) -> None:
        """Keeps nothing."""


def asked_in(protocols: SiteProtocols, site: str, frame: Frame) -> int:
    """The version in which a site is asked.

    Only the latest has messages with a body or a shared network. There every site is asked in it,
    for a site that was updated tells so in its answer.
    """
    return LATEST if frame.needs_latest else common(protocols.of(site))


def note_answer(protocols: SiteProtocols, reply: SiteReply) -> None:
    """Keeps the version that the site of a reply names, if it has answered."""
    if reply.content is not None and reply.request.site:
        protocols.note(reply.request.site, spoken_by_site(reply.content))


def too_old(reply: SiteReply, frame: Frame) -> str:
    """The reason why a site could not answer such a message; "" if it is another one."""
    if not frame.needs_latest or reply.content is None:
        return ""
    spoken = spoken_by_site(reply.content)
    if spoken >= LATEST:
        return ""
    part = "a shared network" if frame.shared else "a body"
    return (
        f"the site speaks protocol {spoken}, which has no messages with {part}; "
        "update F2L-Fed at the site"
    )
