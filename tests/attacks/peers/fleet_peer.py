"""A small scripted SuperNode: it signs as Flower's client does, and pushes whatever a test says.

A peer is a registered site's folder (`tests.support.visits.registered`) and the running service.
Within ``with FleetPeer(central, folder) as peer`` it is online. To write another attack: take what
`FleetPeer.task` returns, make a reply with `tests.support.superlink_state.reply_to`, spoil its
head, its tree or its objects, and hand them to `FleetPeer.begin` and `FleetPeer.push`; both return
a status, so that a test says what the server answered.

`asking` runs an app on the server that asks each node once and tells what it hears, as a round
does but without Ray and torch.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, message_from_proto, message_to_proto
from flwr.proto import control_pb2
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from tests.support.central import Central
from tests.support.visits import shaking
from tests.support.waiting import PATIENCE_S, holds


class FleetPeer:
    """A node that is online until the block ends.

    Args:
        central: The service.
        folder: Of a registered site.
    """

    def __init__(self, central: Central, folder: Path) -> None:
        self._private = load_ssh_private_key((folder / "flower.key").read_bytes(), None)
        self._client = FleetHttpClient(
            f"https://localhost:{central.gateway}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(self._private, self._private.public_key()),
            ],
            verify=shaking(central, folder),
        )
        self.id = 0

    def __enter__(self) -> Self:
        self._client.__enter__()
        key = public_key_to_bytes(self._private.public_key())
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=300)
        self.id = self._client.ActivateNode(request).node_id
        self._client.SendNodeHeartbeat(
            SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=300)
        )
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.id))
        self._client.__exit__(*error)

    @property
    def node(self) -> Node:
        return Node(node_id=self.id)

    def task(self) -> Message:
        """The next message to this node, confirmed."""
        found: list[Any] = []

        def came() -> bool:
            found.extend(
                self._client.PullMessages(PullMessagesRequest(node=self.node)).messages_list
            )
            return bool(found)

        assert holds(came)
        asked = message_from_proto(found[0])
        about = asked.metadata
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=about.run_id, message_object_id=about.message_id
            )
        )
        return asked

    def begin(self, reply: Message, **changes: Any) -> tuple[int, Any]:
        """Pushes the head of a message; the status, and Flower's answer where there is one."""
        head = message_to_proto(reply)
        head.content.Clear()
        fields = {
            "node": self.node,
            "messages_list": [head],
            "message_object_trees": [get_object_tree(reply)],
        }
        try:
            return 200, self._client.PushMessages(PushMessagesRequest(**{**fields, **changes}))
        except httpx.HTTPStatusError as error:
            return error.response.status_code, None

    def push(self, run: int, session: str, id: str, data: bytes) -> tuple[int, bool]:
        """Pushes an object; the status, and whether it was kept."""
        request = PushObjectRequest(
            node=self.node, run_id=run, session_id=session, object_id=id, object_content=data
        )
        try:
            return 200, bool(self._client.PushObject(request).stored)
        except httpx.HTTPStatusError as error:
            return error.response.status_code, False

    def send(self, reply: Message) -> int:
        """Pushes a whole message; the first status that is not 200, or 200."""
        status, begun = self.begin(reply)
        if status != 200:
            return status
        parts = get_all_nested_objects(reply)
        for id in begun.objects_to_push:
            data = parts[id].deflate()
            status, _ = self.push(reply.metadata.run_id, begun.session_id, id, data)
            if status != 200:
                return status
        return 200


_APP = """
    import json, time
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.serverapp import ServerApp
    from f2l_fed.wire.reply_bound import largest_built_in
    from server.superlink.reply_guard import guard_replies

    app = ServerApp()

    @app.main()
    def main(grid, context):
        guard_replies(largest_built_in())
        nodes = {node.node_id: node.name for node in grid.get_nodes()}
        ask = RecordDict({"task": ConfigRecord({"for": "all"})})
        ids = {}
        for node, name in nodes.items():
            (id,) = grid.push_messages([Message(ask, node, "train.task")])
            ids[id] = name
        while ids:
            for reply in grid.pull_messages(list(ids)):
                name = ids.pop(reply.metadata.reply_to_message_id, "nobody")
                says = "error"
                if reply.has_content():
                    says = reply.content.config_records["numbers"]["same"]
                with open(context.run_config["out"], "a") as file:
                    file.write(json.dumps([name, says]) + "\\n")
            time.sleep(0.1)
"""

_PROJECT = """
    [project]
    name = "asking"
    version = "0.1.0"
    license = "Apache-2.0"
    dependencies = []
    [tool.flwr.app]
    publisher = "tests"
    [tool.flwr.app.components]
    serverapp = "asking:app"
    clientapp = "asking:app"
    [tool.flwr.app.config]
    out = "{out}"
"""


@dataclass(frozen=True)
class Asking:
    """A run that asks.

    Args:
        file: What it has heard.
        run: Flower's number of it.
    """

    file: Path
    run: int

    def heard(self) -> list[tuple[str, str]]:
        """Site and text of each reply so far, "error" for one that failed."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    def hears(self, *those: tuple[str, str]) -> bool:
        """Whether it hears these in time, in any order."""
        return holds(lambda: sorted(self.heard()) == sorted(those))


@contextmanager
def asking(central: Central, folder: Path, peers: Sequence[FleetPeer]) -> Iterator[Asking]:
    """Asks these peers, which are online, until the block ends."""
    assert peers
    app, out = folder / "app", folder / "heard.jsonl"
    app.mkdir()
    (app / "pyproject.toml").write_text(textwrap.dedent(_PROJECT.format(out=out)))
    (app / "asking.py").write_text(textwrap.dedent(_APP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        content = build_fab_from_disk(app)
    fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
    link = central.superlink
    with link._client() as client:
        run = client.StartRun(control_pb2.StartRunRequest(fab=fab)).run_id
    assert holds(lambda: link.run(run).status == "running", timeout_s=PATIENCE_S)
    try:
        yield Asking(out, run)
    finally:
        link.stop(run)
