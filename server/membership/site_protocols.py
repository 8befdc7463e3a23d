"""The versions of the wire protocol that registered sites speak, kept in the registry."""

from __future__ import annotations

from f2l_fed.errors import F2LError
from f2l_fed.wire.enrolment import is_name
from f2l_fed.wire.protocol import LATEST, OLDEST
from server.membership.site_registry import SiteRegistry


class RegisteredProtocols:
    """The versions of registered sites; all others, as in a simulation, speak the latest.

    Answers may be coded.

    Args:
        registry: The sites.
    """

    coded = True

    def __init__(self, registry: SiteRegistry) -> None:
        self._registry = registry

    def of(self, site: str) -> int:
        """The highest version that a site has named; the oldest if its registration is damaged."""
        try:
            known = self._registry.find(site) if is_name(site) else None
        except F2LError:
            return OLDEST
        return known.protocol if known else LATEST

    def note(self, site: str, spoken: int) -> None:
        """Keeps the version that a site has named in its latest answer."""
        try:
            known = self._registry.find(site) if is_name(site) else None
            if known is not None and known.protocol != spoken:
                self._registry.set_protocol(site, spoken)
        except F2LError:
            # A damaged registration is one site's; whoever lists the sites is told of it.
            return
