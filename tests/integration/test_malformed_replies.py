"""Sites that send garbage, names that can't be, or can't be asked: each fails alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import app as honest_app
from server.rounds.journal import Journal
from tests.support.inline import answering, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import events, prepared


def array(values: object) -> Array:
    return Array(np.asarray(values, dtype=np.float32))


def lying_array(**changes: object) -> Array:
    honest = array([1.0, 2.0])
    fields = {
        "dtype": honest.dtype,
        "shape": honest.shape,
        "stype": honest.stype,
        "data": honest.data,
    }
    return Array(**{**fields, **changes})


def deep_array() -> Array:
    shape = (1,) * 65
    honest = array([1.0])
    head = honest.data.index(b"{")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(header).to_bytes(2, "little")
    return lying_array(shape=shape, data=honest.data[: head - 2] + size + header + bytes(4))


def with_arrays(reply: RecordDict, **arrays: Array) -> RecordDict:
    return RecordDict({**dict(reply), "arrays": ArrayRecord({**reply["arrays"], **arrays})})


def with_networks(change: Callable[[Array], Array]) -> Callable[[RecordDict], RecordDict]:
    return lambda reply: with_arrays(reply, weights=change(reply["arrays"]["weights"]))


GARBAGE = {
    "nothing": lambda _: RecordDict(),
    "other records": lambda _: RecordDict({"x": ArrayRecord({"w": array([1.0])})}),
    "head of other types": lambda reply: RecordDict(
        {**dict(reply), "update": ConfigRecord({**reply["update"], "round": "1"})}
    ),
    "a million probes": lambda reply: RecordDict(
        {**dict(reply), "update": ConfigRecord({**reply["update"], "episodes": 1_000_000})}
    ),
    "minus one probe": lambda reply: RecordDict(
        {**dict(reply), "update": ConfigRecord({**reply["update"], "episodes": -1})}
    ),
    "another layout": lambda reply: RecordDict(
        {**dict(reply), "update": ConfigRecord({**reply["update"], "layout": "00"})}
    ),
    "one network too many": with_networks(lambda honest: array(np.ones((2, honest.shape[1])))),
    "networks of another size": with_networks(lambda _: array(np.ones((1, 3)))),
    "networks in one row": with_networks(lambda honest: array(np.ones(honest.shape[1]))),
    "bytes that are no array": with_networks(lambda _: lying_array(data=b"\x93NUMPY")),
    "a shape that lies": with_networks(lambda _: lying_array(shape=(1 << 20, 1 << 10))),
    "the right shape that lies": with_networks(lambda honest: lying_array(shape=honest.shape)),
    "more sizes than an array can have": with_networks(lambda _: deep_array()),
    "objects": with_networks(lambda honest: lying_array(shape=honest.shape, dtype="object")),
    "an array more": lambda reply: with_arrays(reply, body=array([1.0])),
    "probes left out": lambda reply: RecordDict(
        {**dict(reply), "arrays": ArrayRecord({"weights": reply["arrays"]["weights"]})}
    ),
    "numbers that are lists": lambda reply: RecordDict(
        {**dict(reply), "numbers": MetricRecord({"examples": [1.0, 2.0]})}
    ),
}


def test_every_kind_of_garbage_gets_its_code_and_the_round_goes_on(tmp_path):
    kinds = list(GARBAGE)
    federation, files = prepared(tmp_path / "out", "round.quorum=0.1", sites=len(kinds) + 4)

    def task(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if context.node_id <= len(kinds):
            reply.content = GARBAGE[kinds[context.node_id - 1]](reply.content)
        return reply

    grid = LoopbackGrid(answering(task), nodes(files))
    (state,) = conductor(federation, files, grid=grid).run(1, len(files))
    lines = Journal.of(tmp_path / "out" / "rounds", 1).read()
    said = {line.site: line.code for line in lines}
    assert {kind: said[f"site-{n:03d}"] for n, kind in enumerate(kinds)} == {
        kind: "count" if kind.endswith("probe") or kind.endswith("probes") else "garbage"
        for kind in kinds
    }
    assert (state.step, len(state.accepted)) == ("done", 4)


class RefusingGrid(LoopbackGrid):
    """Takes no task for one node, as a SuperLink does whose node has just been removed."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        taken = [
            message
            for message in messages
            if not (
                message.metadata.dst_node_id == 3 and message.metadata.message_type == "train.task"
            )
        ]
        return super().push_messages(taken)


def test_a_task_that_can_not_be_delivered_fails_its_site_alone(tmp_path):
    federation, files = prepared(tmp_path / "out")
    grid = RefusingGrid(honest_app, nodes(files))
    (state,) = conductor(federation, files, grid=grid).run(1, 6)
    assert state.rejected == {"site-002": "the message could not be delivered (undeliverable)"}
    assert len(state.accepted) == 5


@pytest.mark.parametrize("name", ["", "a\n"])
def test_a_name_that_the_zoo_can_not_take_leaves_out_who_gives_it(tmp_path, name):
    federation, files = prepared(tmp_path / "out")
    sites = ClientApp()

    @sites.query("probe")
    def probe(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if context.node_id == 3:
            head = reply.content.config_records["reply"]
            reply.content["reply"] = ConfigRecord({**head, "site": name})
        return reply

    @sites.train("task")
    def task(message: Message, context: Context) -> Message:
        return honest_app(message, context)

    (state,) = conductor(federation, files, grid=LoopbackGrid(sites, nodes(files))).run(1, 6)
    assert (state.step, len(state.accepted)) == ("done", 5)
    (failed,) = events(tmp_path / "out", "site.failed")
    assert failed["reason"] == "not a valid site name"


def test_what_is_wrong_with_a_site_s_data_is_told_by_its_kind_and_nothing_else(tmp_path):
    federation, files = prepared(tmp_path / "out")
    (files[2].parent / "train.npz").write_bytes(b"no data any more")
    (state,) = conductor(federation, files).run(1, 6)
    assert len(state.accepted) == 5
    (failed,) = events(tmp_path / "out", "site.failed")
    assert failed["reason"] == "refused: the site's examples can't be used (data-unusable)"
    assert (failed["site"], failed["code"]) == ("site-002", "unable")
    assert list(state.rejected) == ["site-002"]
