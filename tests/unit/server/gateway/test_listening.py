"""The addresses at which the gateway listens."""

from __future__ import annotations

import socket

import pytest

from server.gateway.gateway import listening
from server.gateway.places import address_group


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_all_addresses_of_ipv6_stand_for_those_of_ipv4_too():
    with listening("::", 0) as listener:
        port = listener.getsockname()[1]
        groups = []
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)):
                connection, address = listener.accept()
                connection.close()
                groups.append(address_group(str(address[0])))
    assert groups == ["127.0.0.1", "::/64"]


def test_an_address_of_ipv4_stands_for_itself():
    with listening("127.0.0.1", 0) as listener:
        assert listener.family == socket.AF_INET
