"""Places of the gateway: who gets one, and who gives way."""

from __future__ import annotations

import pytest

from server.gateway.places import (
    HURRIED_S,
    REMEMBERED_PER_SITE,
    REMEMBERED_S,
    Place,
    Places,
    address_group,
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def places(clock: Clock, *, connections: int = 8, per_host: int = 100) -> Places:
    return Places(connections=connections, per_host=per_host, clock=clock)


def taken(places: Places, *hosts: str) -> list[Place]:
    """A place for each host; each must get one."""
    found = [places.take(host) for host in hosts]
    assert None not in found
    return [place for place in found if place is not None]


def ended(place: Place) -> bool:
    return place.pool is None and not place.site


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("no address", "no address"),
    ],
)
def test_addresses_that_one_sender_has_at_will_count_as_one(host, group):
    assert address_group(host) == group


def test_all_addresses_of_one_ipv6_network_share_its_limit(clock):
    few = places(clock, connections=100, per_host=3)
    taken(few, *(f"2001:db8::{number:x}:1" for number in range(3)))
    assert few.take("2001:db8::ffff:1") is None
    assert few.take("2001:db8:0:1::1") is not None


def test_the_address_that_holds_the_most_gives_way_at_once(clock):
    full = places(clock)
    first, second, *others = taken(full, "a", "a", "a", "b")
    calls: list[str] = []
    first.give_way = lambda: calls.append("first")
    newcomer = full.take("c")
    assert newcomer is not None
    assert calls == ["first"]
    assert ended(first)
    assert not any(ended(place) for place in (second, *others, newcomer))


def test_a_connection_without_a_certificate_gives_way_once_it_is_old(clock):
    full = places(clock)
    (oldest, *_) = taken(full, "a", "b", "c", "d")
    assert full.take("e") is None
    clock.now += HURRIED_S
    assert full.take("e") is not None
    assert ended(oldest)


def test_sites_have_room_where_they_were_lately(clock):
    full = places(clock)
    (visit,) = taken(full, "home")
    assert full.authenticate(visit, "north")
    full.free(visit)
    taken(full, "a", "b", "c", "d")
    assert full.take("elsewhere") is None
    (back,) = taken(full, "home")
    clock.now += REMEMBERED_S
    assert full.authenticate(back, "north"), "which remembers the address again"
    clock.now += REMEMBERED_S / 2
    taken(full, "home")


def test_an_address_is_forgotten_after_a_while_and_when_the_site_has_many(clock):
    full = places(clock, connections=400, per_host=1)
    for number in range(REMEMBERED_PER_SITE + 1):
        (visit,) = taken(full, f"home-{number}")
        assert full.authenticate(visit, "north")
        full.free(visit)
    known, unknown = taken(full, "home-1", "home-0")
    assert known.pool is not unknown.pool
    full.free(known)
    clock.now += REMEMBERED_S
    (late,) = taken(full, "home-1")
    assert late.pool is unknown.pool


def test_a_site_with_its_certificate_never_gives_way_and_has_a_limit_of_its_own(clock):
    full = places(clock, connections=4, per_host=2)
    lasting = []
    for host, site in (("a", "north"), ("b", "north"), ("c", "south"), ("d", "south")):
        (place,) = taken(full, host)
        assert full.authenticate(place, site)
        if host == "b":
            (third,) = taken(full, "e")
            assert not full.authenticate(third, "north")
            full.free(third)
        lasting.append(place)
    clock.now += 10 * HURRIED_S
    assert full.take("f") is None
    assert not any(ended(place) for place in lasting)


def test_a_place_that_is_freed_twice_is_free_once(clock):
    full = places(clock)
    (place,) = taken(full, "a")
    full.free(place)
    full.free(place)
    assert not full.authenticate(place, "north")
    taken(full, "a", "b", "c", "d")
    assert full.take("e") is None
