"""Sites that push what is no reply of theirs, through the real gateway and SuperLink."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, Metadata
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from server.processes import strays
from tests.attacks.peers.fleet_peer import FleetPeer, asking
from tests.support.central import Central, prepare, running
from tests.support.superlink_state import content, message, reply_to
from tests.support.visits import registered

pytestmark = [pytest.mark.deployment, pytest.mark.slow]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    root = tmp_path_factory.mktemp("central") / "federation"
    with running(root, *prepare(root)) as service:
        yield service


@pytest.fixture
def peers(central, tmp_path_factory) -> Iterator[tuple[FleetPeer, FleetPeer]]:
    """A site that attacks, and an honest one."""
    kits = Path(central.root.parent / "kits")
    kits.mkdir(exist_ok=True)
    alder, birch = (registered(central, kits, name) for name in ("alder", "birch"))
    with FleetPeer(central, alder) as bad, FleetPeer(central, birch) as good:
        yield bad, good


def to_the_centre(asked: Message, node: int) -> Message:
    """An instruction for the ServerApp, as if the ServerApp had sent it."""
    about = Metadata(
        run_id=asked.metadata.run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=3600.0,
        message_type="train.task",
    )
    return message(about, content(node % 97))


def test_pushes_that_are_no_replies_to_an_own_message_are_refused(central, peers, tmp_path):
    bad, good = peers
    with asking(central, tmp_path, peers) as run:
        own, other = bad.task(), good.task()
        # An instruction to the centre, whose objects never come: each cost a pull three minutes.
        assert bad.begin(to_the_centre(own, bad.id))[0] == 409
        # In another's name: openly, as the other's node, and inside a head of one's own.
        assert bad.begin(reply_to(other, content(1.0)))[0] == 409
        assert bad.begin(reply_to(other, content(1.0), src_node_id=bad.id))[0] == 409
        # Two at once, and the objects of another message.
        reply = reply_to(own, content(1.0))
        head = message_to_proto(reply)
        head.content.Clear()
        trees = [get_object_tree(reply)]
        assert (
            bad.begin(reply, messages_list=[head, head], message_object_trees=trees * 2)[0] == 409
        )
        wrong = [get_object_tree(reply_to(own, content(2.0)))]
        assert bad.begin(reply, message_object_trees=wrong)[0] == 409
        # Nothing has been kept: both sites answer, and a second answer is refused.
        assert good.send(reply_to(other, content(1.0))) == 200
        assert bad.send(reply) == 200
        assert run.hears(("alder", "for all"), ("birch", "for all"))
        assert bad.begin(reply_to(own, content(3.0)))[0] == 409
    lines = [line for line in central.logs().splitlines() if "site 'alder': refused" in line]
    assert len(lines) == 6
    assert all(len(line) < 500 for line in lines)


def test_a_reply_in_another_s_name_inside_an_own_head_is_the_liar_s_failure(
    central, peers, tmp_path
):
    bad, good = peers
    with asking(central, tmp_path, peers) as run:
        own, other = bad.task(), good.task()
        lie = reply_to(other, content(1.0))
        head = reply_to(own, content(1.0))
        head.metadata.__dict__["_message_id"] = lie.metadata.message_id
        status, begun = bad.begin(head, message_object_trees=[get_object_tree(lie)])
        assert status == 200
        parts = get_all_nested_objects(lie)
        said = {
            bad.push(run.run, begun.session_id, id, parts[id].deflate())[0]
            for id in sorted(begun.objects_to_push, key=lambda id: id == lie.metadata.message_id)
        }
        assert said == {200, 409}
        assert good.send(reply_to(other, content(1.0))) == 200
        assert run.hears(("alder", "error"), ("birch", "for all"))


def test_an_incomplete_reply_holds_up_nobody(central, peers, tmp_path):
    bad, good = peers
    with asking(central, tmp_path, peers) as run:
        own, other = bad.task(), good.task()
        reply = reply_to(own, content(1.0))
        status, begun = bad.begin(reply)
        assert status == 200
        assert good.send(reply_to(other, content(1.0))) == 200
        assert run.hears(("birch", "for all"))
        # It is complete at last, and heard.
        parts = get_all_nested_objects(reply)
        for id in begun.objects_to_push:
            assert bad.push(run.run, begun.session_id, id, parts[id].deflate()) == (200, True)
        assert run.hears(("birch", "for all"), ("alder", "for all"))


def superlink_bytes(central: Central) -> int:
    """Memory of the SuperLink's process."""
    (pid,) = [
        pid
        for pid in strays(central.mark)
        if "server.superlink.process" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_800_megabytes_of_further_records_are_refused_early(central, peers, tmp_path):
    bad, good = peers
    with asking(central, tmp_path, peers) as run:
        own, other = bad.task(), good.task()
        before = superlink_bytes(central)
        many = content(1.0)
        for n in range(20):
            many[f"further-{n}"] = ArrayRecord({"w": Array(np.full(10**7, n, np.float32))})
        assert bad.send(reply_to(own, many)) == 409
        assert superlink_bytes(central) - before < 200 * 2**20
        assert good.send(reply_to(other, content(1.0))) == 200
        assert run.hears(("alder", "error"), ("birch", "for all"))
