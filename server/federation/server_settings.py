"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.addresses import split_address
from f2l_fed.core.validation import choice, positive, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the central service is run.

    Args:
        address: host:port under which sites reach this server; it goes into their kits.
        listen: Address and port of the TLS gateway for sites. Only loopback until it is changed,
            for instance to "0.0.0.0:8443".
        control: Address and port of the control service for f2l-admin.
        dashboard: Port of the dashboard, always on loopback; 0 for any.
        superlink: Port of Flower's SuperLink, always on loopback; 0 for any.
        enrolment: Port of the service behind /v1/site/, always on loopback; 0 for any.
        gateway: "built-in", or "external" where an nginx as in deploy/nginx/ stands before
            fixed ports of superlink and enrolment.
        kit_hours: How long a site's kit can be used.
        certificate_days: Validity of a site's certificate; its daemon renews it in time.
        largest_body_bytes: Largest request that a site may send.
        connections: Most connections of sites at a time.
        connections_per_host: Most connections at a time from one address.
    """

    address: str = "localhost:8443"
    listen: str = "127.0.0.1:8443"
    control: str = "127.0.0.1:8770"
    dashboard: int = 8765
    superlink: int = 0
    enrolment: int = 0
    gateway: str = "built-in"
    kit_hours: int = 72
    certificate_days: int = 90
    largest_body_bytes: int = 2**28
    connections: int = 1000
    connections_per_host: int = 100

    def __post_init__(self) -> None:
        for name in ("address", "listen", "control"):
            split_address(getattr(self, name), name)
        choice(self, "gateway", ("built-in", "external"))
        for name in ("dashboard", "superlink", "enrolment"):
            require(0 <= getattr(self, name) < 2**16, self, name, "a port, or 0 for any")
        external = self.gateway == "external"
        require(not external or self.superlink > 0, self, "superlink", "a fixed port")
        require(not external or self.enrolment > 0, self, "enrolment", "a fixed port")
        positive(self, "kit_hours", "certificate_days", "connections", "connections_per_host")
        positive(self, "largest_body_bytes")

    @property
    def host(self) -> str:
        """The host that sites know."""
        return split_address(self.address, "address")[0]
