"""Messages to sites: repeated until they are confirmed, and confirmed only once they are whole."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.superlink.servicer.fleet import fleet_handlers

from f2l_fed.wire.reply_bound import largest_built_in
from server.superlink.redelivery import Redelivery
from tests.support.superlink_state import SuperLinkState


class Sites(SuperLinkState):
    """The link state behind the redelivery of messages."""

    def __init__(self) -> None:
        super().__init__(largest_built_in())
        self.redelivery = Redelivery(
            fleet_handlers.pull_messages, fleet_handlers.confirm_message_received
        )

    def pulled(self, node: int) -> list[str]:
        """Ids of the messages that a poll of this node returns."""
        request = PullMessagesRequest(node=Node(node_id=node))
        answer = self.redelivery.pull_messages(request, self.state, self.state.object_store)
        return [message_from_proto(each).metadata.message_id for each in answer.messages_list]

    def confirm(self, node: int, message_id: str) -> None:
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=node), run_id=self.run, message_object_id=message_id
        )
        self.redelivery.confirm_message_received(request, self.state, self.state.object_store)


@pytest.fixture
def sites() -> Sites:
    return Sites()


def test_a_message_is_repeated_until_it_is_confirmed(sites):
    asked, node = sites.give(sites.nodes[0]), sites.nodes[0]
    assert sites.pulled(node) == sites.pulled(node) == [asked.metadata.message_id]
    sites.confirm(node, asked.metadata.message_id)
    assert sites.pulled(node) == []
    assert asked.metadata.message_id not in sites.state.object_store


def test_a_message_that_the_server_still_sends_cannot_be_confirmed_away(sites):
    node = sites.nodes[0]
    parts = get_all_nested_objects(asked := sites.message_to(node))
    order = list(np.random.default_rng(0).permutation(sorted(parts)))
    session = sites.announce(asked)
    for id in order:
        assert sites.pulled(node) == [asked.metadata.message_id]
        sites.confirm(node, asked.metadata.message_id)
        # The server's own upload is not disturbed: a refused part ends the whole round.
        assert sites.state.store_object(sites.run, session, id, parts[id].deflate())
    assert sites.pulled(node) == [asked.metadata.message_id]
    sites.confirm(node, asked.metadata.message_id)
    assert sites.pulled(node) == []


def test_another_site_cannot_confirm_it(sites):
    own, other = sites.nodes
    asked = sites.give(own)
    assert sites.pulled(own) == [asked.metadata.message_id]
    sites.confirm(other, asked.metadata.message_id)
    assert asked.metadata.message_id in sites.state.object_store
    assert sites.pulled(own) == [asked.metadata.message_id]
