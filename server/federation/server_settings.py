"""The ``[server]`` section of ``federation.toml``: addresses, ports, certificates and limits."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.addresses import split_address
from f2l_fed.core.validation import choice, positive, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of the central service.

    Args:
        address: host:port under which sites reach this server; it goes into their kits.
        listen: Address and port of the TLS gateway for sites. Only loopback until it is changed,
            for instance to "0.0.0.0:8443".
        control: Address and port of the control service for f2l-admin.
        dashboard: Port of the dashboard, always on loopback; 0 for any.
        dashboard_hosts: Host names, separated by spaces, by which the dashboard may be asked for,
            as through a proxy; beside localhost and the host of address. Others are refused.
        superlink: Port of Flower's SuperLink, always on loopback; 0 for any.
        enrolment: Port of the service behind /v1/site/, on loopback, for an external gateway; the
            built-in one reaches it on a socket.
        gateway: "built-in", or "external" for an nginx as in deploy/nginx/ before
            fixed ports of superlink and enrolment.
        kit_hours: Validity of a site's kit.
        certificate_days: Validity of a site's certificate; its daemon renews it in time.
        largest_body_bytes: Size limit of a site's request; less where its largest reply is smaller,
            but 16 MiB at least.
        connections: Limit of simultaneous connections of sites. Half of them is for callers that
            have not shown a site's certificate, a quarter more for such callers at addresses where
            a site has shown one within 7 days.
        connections_per_host: The same limit for each address (of IPv6, each /64) and each site.
    """

    address: str = "localhost:8443"
    listen: str = "127.0.0.1:8443"
    control: str = "127.0.0.1:8770"
    dashboard: int = 8765
    dashboard_hosts: str = ""
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
        for host in self.dashboard_hosts.split():
            split_address(f"{host}:0", "dashboard_hosts")
        choice(self, "gateway", ("built-in", "external"))
        for name in ("dashboard", "superlink", "enrolment"):
            require(0 <= getattr(self, name) < 2**16, self, name, "a port, or 0 for any")
        external = self.gateway == "external"
        require(not external or self.superlink > 0, self, "superlink", "a fixed port")
        require(not external or self.enrolment > 0, self, "enrolment", "a fixed port")
        positive(self, "kit_hours", "certificate_days", "connections", "connections_per_host")
        positive(self, "largest_body_bytes")

    @property
    def dashboard_names(self) -> tuple[str, ...]:
        """The host names of the dashboard beside those of loopback."""
        return (self.host, *self.dashboard_hosts.split())

    @property
    def host(self) -> str:
        """The host name in `address`."""
        return split_address(self.address, "address")[0]
