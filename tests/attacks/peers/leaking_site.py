"""A site that sends what it must not: Flower's own client with a site's certificate and key.

It says whatever it is told to, so it shows what a wire, a gateway or a server makes of it. The next
liar over the Fleet routes takes `fleet` and calls other routes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY


@contextmanager
def fleet(port: int, folder: Path) -> Iterator[FleetHttpClient]:
    """Flower's client of the Fleet routes with the keys in a site's folder."""
    tls = ssl.create_default_context(cafile=folder / AUTHORITY)
    tls.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    private = load_ssh_private_key((folder / "flower.key").read_bytes(), None)
    with FleetHttpClient(
        f"https://localhost:{port}",
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),
        ],
        verify=tls,
    ) as client:
        yield client


def leak(port: int, folder: Path, text: str, row: np.ndarray) -> None:
    """Pushes a message with a text and some numbers; the server may refuse it."""
    content = RecordDict(
        {"note": ConfigRecord({"host": text}), "inputs": ArrayRecord({"x": Array(row)})}
    )
    message = Message(metadata=Metadata(message_type="train"), content=recorddict_to_proto(content))
    with fleet(port, folder) as client:
        try:
            client.PushMessages(PushMessagesRequest(node=Node(node_id=1), messages_list=[message]))
        except httpx.HTTPError:
            return
