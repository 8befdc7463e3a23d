"""The grid of simulated sites: contexts of its nodes, errors of the app, and killed processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from server.cluster.fork_server import FORK_SERVER
from server.rounds.state import Interrupted
from server.simulation.local_grid import LocalGrid
from tests.support.jobs import odd_sites


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    grid = LocalGrid(odd_sites, sites=3, processes=2, environment={"F2L_TOLD": "5"})
    yield grid
    grid.close()


def asked(grid: LocalGrid, kind: str, nodes: list[int]) -> list[Message]:
    messages = [Message(RecordDict(), dst_node_id=node, message_type=kind) for node in nodes]
    replies = list(grid.send_and_receive(messages))
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def told(reply: Message) -> dict[str, object]:
    return dict(reply.content.metric_records["told"])


def test_every_node_has_a_context_of_its_own_whatever_process_answers(grid):
    assert list(grid.get_node_ids()) == [1, 2, 3]
    for count in range(1, 4):
        replies = asked(grid, "query.count", [1, 2, 3])
        assert [told(one) for one in replies] == [{"n": count, "partition": n} for n in range(3)]
    assert [told(one)["n"] for one in asked(grid, "query.count", [2])] == [4]
    where = [told(one) for one in asked(grid, "query.where", [1, 2, 3] * 4)]
    assert len({one["pid"] for one in where}) <= 2
    assert {one["told"] for one in where} == {5}


def test_an_exception_of_the_app_and_a_killed_process_are_error_messages(grid):
    (failed,) = asked(grid, "train.fail", [1])
    assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert failed.metadata.src_node_id == 1
    lost = asked(grid, "train.die", [1, 2, 3])
    assert [one.error.code for one in lost] == [ErrorCode.UNKNOWN] * 3
    assert [one.has_error() for one in asked(grid, "query.count", [1, 2, 3])] == [False] * 3


def test_a_fork_server_that_can_not_start_interrupts_the_server(grid, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text('raise ImportError("libblas.so: no such file")')
    monkeypatch.syspath_prepend(tmp_path)
    FORK_SERVER.end()
    FORK_SERVER.start("broken_module")
    with pytest.raises(Interrupted, match=r"can't start: got ImportError: libblas\.so"):
        asked(grid, "query.count", [1, 2, 3])


def test_replies_are_given_once_and_a_closed_grid_gives_none(grid):
    identifiers = list(grid.push_messages([Message(RecordDict(), 1, "query.count")]))
    replies: list[Message] = []
    while not replies:
        replies = list(grid.pull_messages(identifiers))
    assert list(grid.pull_messages(identifiers)) == []
    grid.close()
    assert list(grid.send_and_receive([Message(RecordDict(), 1, "query.count")])) == []
