"""The places for connections: how many are open at a time, and which one gives way to another.

A connection that has not shown a site's certificate can be anybody's, and a silent one costs its
sender nothing. Such connections therefore get a part of all places, and while places are short an
old one gives way to a new one: one of the address that holds the most, or one that has had
`HURRIED_S`. Addresses from which a site has lately shown a certificate have a part of their own, so
that sites get in whatever others do. A connection with a site's certificate never gives way.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

HURRIED_S = 2.0
"""Age from which a connection without a certificate gives way while places are short."""

REMEMBERED_S = 7 * 24 * 3600.0
"""Time for which an address is remembered after a site has shown its certificate there."""

REMEMBERED_PER_SITE = 8
"""Number of addresses that are remembered for each site, the latest ones."""


def address_group(host: str) -> str:
    """The addresses that one sender has at will, which count as one: a /64 of IPv6, else itself.

    >>> address_group("2001:db8::1:2"), address_group("::ffff:192.0.2.7")
    ('2001:db8::/64', '192.0.2.7')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class KnownAddresses:
    """The addresses from which sites have lately shown certificates.

    Args:
        clock: Seconds, never decreasing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._of_site: dict[str, list[str]] = {}

    def remember(self, group: str, site: str) -> None:
        """Remembers an address for a registered site; a site's oldest one makes room."""
        own = self._of_site.setdefault(site, [])
        if group in own:
            own.remove(group)
        own.append(group)
        if len(own) > REMEMBERED_PER_SITE:
            self._seen.pop(own.pop(0), None)
        self._seen[group] = self._clock()

    def __contains__(self, group: object) -> bool:
        seen = self._seen.get(group) if isinstance(group, str) else None
        return seen is not None and self._clock() - seen < REMEMBERED_S


@dataclass(slots=True, eq=False)
class Place:
    """The place of one connection.

    Args:
        group: Its address, see `address_group`.
        since: Time when the connection began.
        pool: The connections without a certificate that it shares places with; None once a site
            is authenticated.
        site: Name of the authenticated site; "" before.
        give_way: Ends the connection at once.
    """

    group: str
    since: float
    pool: PlacePool | None
    site: str = ""
    give_way: Callable[[], None] = field(default=lambda: None)


class PlacePool:
    """Connections without a certificate, oldest first.

    Args:
        limit: Largest number of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = max(limit, 1)
        self.places: dict[Place, None] = {}
        self._groups: Counter[str] = Counter()

    def add(self, place: Place) -> None:
        """Adds a place."""
        self.places[place] = None
        self._groups[place.group] += 1

    def remove(self, place: Place) -> None:
        """Removes a place."""
        del self.places[place]
        self._groups[place.group] -= 1
        if not self._groups[place.group]:
            del self._groups[place.group]

    def giving_way(self, group: str, now: float) -> Place | None:
        """The place that gives way to a new connection from an address; None for none."""
        if not self.places:
            return None
        most, number = self._groups.most_common(1)[0]
        if number > self._groups[group] + 1:
            return self.oldest_of(most)
        oldest = next(iter(self.places))
        return oldest if now - oldest.since >= HURRIED_S else None

    def oldest_of(self, group: str) -> Place | None:
        """The oldest place of an address; None where it has none."""
        return next((place for place in self.places if place.group == group), None)


class Places:
    """The places of a gateway.

    Args:
        connections: Number of all; half of them is for connections without a certificate, and a
            further quarter for those from addresses that are known.
        per_host: Largest number for each address, and for each site.
        clock: Seconds, never decreasing.
    """

    def __init__(
        self, *, connections: int, per_host: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connections, self._per_host, self._clock = connections, per_host, clock
        self._known = KnownAddresses(clock)
        self._of_known, self._of_unknown = PlacePool(connections // 4), PlacePool(connections // 2)
        self._taken = 0
        self._groups: Counter[str] = Counter()
        self._sites: Counter[str] = Counter()

    def take(self, host: str) -> Place | None:
        """A place for a new connection, for which another may have to give way; None for none."""
        group, now = address_group(host), self._clock()
        known = group in self._known
        pool = self._of_known if known else self._of_unknown
        if self._groups[group] >= self._per_host:
            victim = pool.oldest_of(group)
            if victim is None or now - victim.since < HURRIED_S:
                return None
            self._end(victim)
        elif len(pool.places) >= pool.limit:
            if not self._end(pool.giving_way(group, now)):
                return None
        elif self._taken >= self._connections:
            victim = self._of_unknown.giving_way(group, now)
            if victim is None and known:
                victim = next(iter(self._of_unknown.places), None)
            if not self._end(victim):
                return None
        place = Place(group=group, since=now, pool=pool)
        pool.add(place)
        self._taken += 1
        self._groups[group] += 1
        return place

    def authenticate(self, place: Place, site: str) -> bool:
        """Gives a registered site's connection a lasting place; False if the site has too many."""
        if place.pool is None or self._sites[site] >= self._per_host:
            return False
        place.pool.remove(place)
        place.pool, place.site = None, site
        self._sites[site] += 1
        self._known.remember(place.group, site)
        return True

    def free(self, place: Place) -> None:
        """Frees a place; does nothing to one that is free, as after it has given way."""
        if place.pool is not None:
            place.pool.remove(place)
        elif place.site:
            self._sites[place.site] -= 1
            if not self._sites[place.site]:
                del self._sites[place.site]
        else:
            return
        place.pool, place.site = None, ""
        self._taken -= 1
        self._groups[place.group] -= 1
        if not self._groups[place.group]:
            del self._groups[place.group]

    def _end(self, victim: Place | None) -> bool:
        if victim is None:
            return False
        self.free(victim)
        victim.give_way()
        return True
