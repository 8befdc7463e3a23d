"""Flower's SuperNode with the site's certificate: what the daemon runs.

Flower's own command can't show a certificate to the server. Nothing else is changed, apart from
the limits of the site's configuration, which hold for all that is started from here.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import Any

from flwr.supernode import fleet_http_connection
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from clients import limits
from clients.keys import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE


class CertifiedClient(FleetHttpClient):
    """Flower's client of the Fleet routes, with a certificate of its own."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        context = ssl.create_default_context(cafile=os.environ[AUTHORITY_FILE])
        context.load_cert_chain(os.environ[CERTIFICATE_FILE], os.environ[KEY_FILE])
        super().__init__(base_url, **{**settings, "verify": context})


def main() -> None:
    """Takes the arguments of ``flower-supernode``."""
    limits.apply(os.environ)
    if os.environ.get(CERTIFICATE_FILE):
        name = "FleetHttpClient"
        if not hasattr(fleet_http_connection, name):
            sys.exit(f"this version of Flower has no {name}; nothing is run")
        setattr(fleet_http_connection, name, CertifiedClient)
    flower_supernode()


if __name__ == "__main__":
    main()
