"""Requests to a running central service by registered sites and by Flower's own client."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from clients.onboarding.enrolment import register
from clients.onboarding.kit import read_kit
from server.control import client as control_client
from tests.support.central import Central


def invited(central: Central, kits: Path, name: str) -> Path:
    """A kit for a site."""
    path = kits / f"{name}.kit"
    path.write_bytes(central.ask(lambda to: control_client.add_site(to, name)))
    return path


def registered(central: Central, kits: Path, name: str) -> Path:
    """The folder of a registered site."""
    folder = kits / name
    if not folder.exists():
        register(read_kit(invited(central, kits, name), now=datetime.now(UTC)), folder)
    return folder


def shaking(
    central: Central, folder: Path | None = None, *, key: str = "tls.key"
) -> ssl.SSLContext:
    """The TLS settings of a client: the authority's certificate, and its own if it has one."""
    context = ssl.create_default_context(cafile=central.certificates / "ca.crt")
    if folder is not None:
        context.load_cert_chain(folder / "tls.crt", folder / key)
    return context


def activate(central: Central, tls: ssl.SSLContext, key_of: Path) -> int:
    """The status that Flower's own client gets with a site's key; 0 where it is cut off."""
    private = load_ssh_private_key((key_of / "flower.key").read_bytes(), None)
    public = private.public_key()
    client = FleetHttpClient(
        f"https://localhost:{central.gateway}",
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ],
        verify=tls,
    )
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=30)
    with client:
        try:
            node = client.ActivateNode(request)
            client.PullMessages(PullMessagesRequest(node=Node(node_id=node.node_id)))
            # Flower takes no second SuperNode with a key while the first is online.
            client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        except httpx.HTTPStatusError as error:
            return error.response.status_code
        except httpx.TransportError:
            return 0
    return 200
