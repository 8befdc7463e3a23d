from __future__ import annotations

import time
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory

from clients.daemon.node_state import AnsweringNodeState, pull_whole_message
from clients.site.sent_log import SentLog

RUN = 7


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnsweringNodeState:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    return AnsweringNodeState(ObjectStoreFactory().store())


def message() -> Message:
    about = Metadata(
        run_id=RUN,
        message_id="",
        src_node_id=1,
        dst_node_id=5,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=3600.0,
        message_type="train.task",
    )
    made = make_message(about, RecordDict({"task": ConfigRecord({"a": 1})}))
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


def handed_over(state: AnsweringNodeState, reply: Message, *, whole: bool) -> None:
    reply.metadata.__dict__["_message_id"] = reply.object_id
    state.object_store.preregister(RUN, get_object_tree(reply))
    parts = list(get_all_nested_objects(reply).items())
    for id, part in parts if whole else parts[:-1]:
        state.object_store.put(id, part.deflate())
    state.store_message(reply)


def begun(state: AnsweringNodeState) -> int:
    number = state.create_task(TaskType.CLIENT_APP, run_id=RUN, fab_hash="x")
    assert number is not None
    assert state.claim_task(number)
    return number


def recorded(folder: Path) -> list[str]:
    return [entry["fields"]["code"] for entry in SentLog.in_folder(folder).entries()]


def test_a_task_that_failed_before_it_took_its_message_is_answered_and_recorded(state, tmp_path):
    number, asked = begun(state), message()
    state.store_message(asked)
    assert state.finish_task(number, "failed", "killed")
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.has_error()
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    assert recorded(tmp_path) == ["task-ended"]


def test_an_answer_that_was_handed_over_is_the_only_one(state, tmp_path):
    number, asked = begun(state), message()
    state.store_message(asked)
    reply = Message(RecordDict({"reply": ConfigRecord({"b": 2})}), reply_to=asked)
    handed_over(state, reply, whole=True)
    assert state.finish_task(number, "failed", "killed")
    assert len(state.get_messages_legacy(is_reply=True)) == 1
    assert state.object_store.get(reply.object_id)
    assert recorded(tmp_path) == []


def test_nobody_waits_for_the_rest_of_an_answer_whose_task_has_failed(state):
    number, asked = begun(state), message()
    state.store_message(asked)
    reply = Message(RecordDict({"reply": ConfigRecord({"b": 2})}), reply_to=asked)
    handed_over(state, reply, whole=False)
    parts = list(get_all_nested_objects(reply))
    assert b"" in [state.object_store.get(part) for part in parts]
    assert state.finish_task(number, "failed", "killed")
    assert {state.object_store.get(part) for part in parts} == {None}


def test_a_run_that_ends_while_its_message_arrives_leaves_no_task(state, tmp_path):
    number, asked = begun(state), message()

    def ignored(state: AnsweringNodeState) -> None:
        # So far Flower comes before it hears that the run has ended.
        state.object_store.preregister(RUN, get_object_tree(asked))
        state.store_message(asked)

    assert pull_whole_message(ignored, state) is None
    (task,) = state.get_tasks(task_ids=[number])
    assert task.status.sub_status == "stopped"
    assert state.get_messages_legacy() == []
    assert state.object_store.get(asked.object_id) is None
    assert recorded(tmp_path) == []
