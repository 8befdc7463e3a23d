"""Messages of wire protocol 4 come through as they were; malformed ones get a typed error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.wire.fields import CountMismatch
from f2l_fed.wire.messages import ProbeReply, ProbeRequest
from f2l_fed.wire.protocol_4 import (
    pack_probe_reply,
    pack_probe_request,
    pack_task,
    pack_update,
    unpack_probe_reply,
    unpack_probe_request,
    unpack_task,
    unpack_update,
)
from tests.support.messages import (
    BODY,
    FRAME,
    HEADS,
    LAYOUT,
    SHARED,
    TASK,
    UPDATE,
    WITH_BODY,
    objects_of,
    same,
    vector,
)


def packed():
    return pack_update(UPDATE, LAYOUT)


def refused(content, match, error=WireError, **of):
    with pytest.raises(error, match=match):
        unpack_update(content, LAYOUT, **of)


def with_update(content=None, **changes):
    content = content or packed()
    content["update"] = ConfigRecord({**content["update"], **changes})
    return content


def with_array(name, array, content=None):
    content = content or packed()
    content["arrays"] = ArrayRecord({**content["arrays"], name: array})
    return content


def with_frame(task=TASK, **changes):
    content = pack_task(task)
    content["frame"] = ConfigRecord({**content["frame"], **changes})
    return content


def without_array(content, name):
    kept = {key: array for key, array in content["arrays"].items() if key != name}
    content["arrays"] = ArrayRecord(kept)
    return content


@pytest.mark.parametrize("anchor", [None, vector(1)])
def test_a_probe_request_comes_through_as_it_was(anchor):
    request = ProbeRequest(frame=FRAME, anchor=anchor)
    assert same(unpack_probe_request(pack_probe_request(request)), request)
    with_body = ProbeRequest(frame=HEADS, anchor=anchor, chain=("ab" * 32, "cd" * 32))
    assert same(unpack_probe_request(pack_probe_request(with_body)), with_body)
    on_a_backbone = replace(with_body, frame=replace(HEADS, frozen=FrozenPart("ef" * 32, 384)))
    assert same(unpack_probe_request(pack_probe_request(on_a_backbone)), on_a_backbone)


@pytest.mark.parametrize("changes", [{"backbone": "nets:make"}, {"backbone": "ef" * 32}])
def test_a_backbone_is_a_digest_with_its_number_of_features(changes):
    with pytest.raises(WireError):
        unpack_task(with_frame(**changes))


@pytest.mark.parametrize(
    "task",
    [TASK, replace(TASK, candidates=(), release="", anchor=None), WITH_BODY, SHARED],
    ids=["candidates", "none", "body", "shared"],
)
def test_a_task_comes_through_as_it_was(task):
    assert same(unpack_task(pack_task(task)), task)


def test_a_reply_comes_through_as_it_was():
    assert same(unpack_update(packed(), LAYOUT, networks=2, episodes=3), UPDATE)
    reply = ProbeReply(site="a", probes=torch.stack([vector(5), vector(6)]))
    assert same(unpack_probe_reply(pack_probe_reply(reply, LAYOUT), LAYOUT, episodes=2), reply)


def test_rows_that_share_memory_are_written_one_by_one():
    shared = replace(UPDATE, probes=vector(3).expand(3, -1), weights=UPDATE.weights.t().clone().t())
    assert same(
        unpack_update(pack_update(shared, LAYOUT), LAYOUT), replace(UPDATE, probes=shared.probes)
    )


def with_body(rows=2):
    update = replace(
        UPDATE,
        chosen=("anchor",) * rows,
        weights=UPDATE.weights[:rows],
        probes=UPDATE.probes[:rows],
        body=vector(4, BODY),
    )
    return update, pack_update(update, LAYOUT, body=BODY)


@pytest.mark.parametrize("rows", [0, 2])
def test_an_update_with_a_body_has_as_many_heads_as_asked_or_none(rows):
    update, content = with_body(rows)
    assert same(unpack_update(content, LAYOUT, body=BODY, networks=2, episodes=2), update)
    with pytest.raises(WireError):
        unpack_update(content, LAYOUT, networks=2, episodes=2)


def test_only_with_a_body_there_may_be_no_probes():
    reply = ProbeReply(site="a", probes=torch.empty(0, LAYOUT.size))
    content = pack_probe_reply(reply, LAYOUT)
    assert same(unpack_probe_reply(content, LAYOUT, body=BODY, episodes=2), reply)
    with pytest.raises(CountMismatch):
        unpack_probe_reply(content, LAYOUT, episodes=2)
    with pytest.raises(WireError, match="no networks or probes"):
        unpack_probe_reply(content, LAYOUT)
    _, bare = with_body(0)
    bare["update"] = ConfigRecord({**bare["update"], "episodes": 1})
    with pytest.raises(CountMismatch):
        unpack_update(bare, LAYOUT, body=BODY, networks=2, episodes=2)


def test_a_body_is_that_of_its_layout():
    _, content = with_body()
    other = type(BODY)(("w",), ((BODY.size,),))
    refused(content, "another layout", LayoutMismatch, body=other)
    wrong = Array(np.zeros(BODY.size + 1, np.float32))
    refused(with_array("body", wrong, content), "body: .*another shape", LayoutMismatch, body=BODY)
    _, content = with_body()
    # A site may keep its body to itself.
    assert unpack_update(without_array(content, "body"), LAYOUT, body=BODY).body is None
    refused(packed(), "body_layout: .*wrong type", body=BODY)
    refused(with_array("body", wrong), "not asked for: got 'body'")


def test_a_message_is_a_few_objects_however_many_rows_it_has():
    assert (objects_of(packed()), objects_of(pack_task(TASK))) == (9, 8)
    assert objects_of(pack_task(WITH_BODY)) == 10
    many = replace(TASK, candidates=TASK.candidates * 20)
    assert objects_of(pack_task(many)) == 8
    assert objects_of(pack_probe_request(ProbeRequest(frame=FRAME, anchor=vector(1)))) == 6


def test_an_update_carries_rows_and_the_declared_numbers_and_nothing_else():
    content = packed()
    assert set(content) == {"update", "numbers", "arrays"}
    assert dict(content["numbers"]) == UPDATE.numbers
    shapes = {name: (array.dtype, tuple(array.shape)) for name, array in content["arrays"].items()}
    assert shapes == {"weights": ("float32", (2, 8)), "probes": ("float32", (3, 8))}


def test_unpacked_tensors_are_the_receivers_own():
    content = packed()
    unpack_update(content, LAYOUT).weights.zero_()
    unpack_task(task := pack_task(TASK)).candidates[0]["prior"].zero_()
    assert same(unpack_update(content, LAYOUT), UPDATE)
    assert same(unpack_task(task), TASK)


@pytest.mark.parametrize("key", ["update", "arrays"])
def test_a_missing_record_is_named(key):
    content = packed()
    del content[key]
    refused(content, f"missing: expected {'weights' if key == 'arrays' else key}")


@pytest.mark.parametrize("name", ["weights", "probes"])
def test_a_missing_array_is_named(name):
    refused(without_array(packed(), name), f"missing: expected {name}")


@pytest.mark.parametrize("key", ["weights.0", "probe.0", "more"])
def test_a_record_that_was_not_asked_for_is_refused(key):
    content = packed()
    content[key] = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
    refused(content, f"not asked for: got '{key}'")


def test_an_update_may_keep_all_its_numbers_to_itself():
    content = packed()
    del content["numbers"]
    assert unpack_update(content, LAYOUT).numbers == {}


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("site", 3, "site: .*wrong type"),
        ("round", "4", "round: .*wrong type"),
        ("round", True, "round: .*wrong type"),
        ("chosen", "prior", "chosen: .*wrong type"),
        ("chosen", [1, 2], "not a list of names"),
        ("chosen", [], "chosen: .*no networks or probes"),
        ("episodes", "3", "episodes: .*wrong type"),
        ("episodes", 0, "episodes: .*no networks or probes"),
        ("episodes", -1, "episodes: .*no networks or probes"),
        ("layout", 0, "layout: .*wrong type"),
        ("version", 5, "another version"),
    ],
)
def test_a_field_of_a_reply_that_is_not_as_agreed_is_named(key, value, match):
    refused(with_update(**{key: value}), match)


@pytest.mark.parametrize("asked", [{"networks": 1}, {"episodes": 4}])
def test_another_number_of_rows_than_asked_is_refused_before_they_are_looked_at(asked):
    content = packed()
    del content["arrays"]
    refused(content, "another number", CountMismatch, **asked)


@pytest.mark.parametrize(
    ("key", "value"), [("chosen", ["prior"] * 3), ("episodes", 2), ("episodes", 10**9)]
)
def test_rows_are_as_many_as_the_reply_names(key, value):
    refused(with_update(**{key: value}), "another shape", LayoutMismatch)


@pytest.mark.parametrize("shape", [(2, 7), (1, 8), (16,), (2, 8, 1), (2, 0), (1,) * 65])
def test_networks_of_another_shape_are_refused(shape):
    wrong = Array(np.zeros(shape, np.float32)) if len(shape) < 65 else deep()
    refused(with_array("weights", wrong), r"weights: .*expected \(2, 8\)", LayoutMismatch)


def deep():
    return Array(dtype="float32", shape=(1,) * 65, stype="numpy.ndarray", data=b"")


@pytest.mark.parametrize("shape", [("a", 8), (None, None), ([2], 8), (2.0, 8)])
def test_a_shape_that_is_none_is_refused(shape):
    # As an array that Flower has read may have it.
    content, task = packed(), pack_task(TASK)
    content["arrays"]["weights"].shape = task["arrays"]["candidates"].shape = shape
    with pytest.raises((WireError, LayoutMismatch)):
        unpack_update(content, LAYOUT)
    with pytest.raises((WireError, LayoutMismatch)):
        unpack_task(task)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_an_array_of_another_type_is_refused(dtype):
    wrong = Array(np.zeros((2, 8), dtype))
    refused(with_array("weights", wrong), f"weights: .*expected float32, got {dtype}")


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, 127), byte=st.integers(0, 255))
def test_no_damaged_header_ends_in_anything_but_a_typed_error(at, byte):
    data = bytearray(Array(np.zeros((2, 8), np.float32)).data)
    data[at] = byte
    array = Array(dtype="float32", shape=(2, 8), stype="numpy.ndarray", data=bytes(data))
    try:
        weights = unpack_update(with_array("weights", array), LAYOUT).weights
    except (WireError, LayoutMismatch):
        return
    assert weights.shape == (2, LAYOUT.size)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [0.5]])
def test_numbers_that_are_no_finite_numbers_are_refused(value):
    content = packed()
    content["numbers"] = MetricRecord({"loss_after": value})
    refused(content, "loss_after: a declared number is not finite")


def test_unknown_declared_numbers_are_refused():
    content = packed()
    content["numbers"] = MetricRecord({"examples": 4.0, "age": 33.0})
    refused(content, "unknown declared number: got 'age'")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kinds": ["prior"]}, "another number of candidates"),
        ({"kinds": "prior"}, "kinds: .*wrong type"),
        ({"kinds": [1, 2, 3]}, "kinds: not a list of one type"),
        ({"kinds": ["prior", "prior", "prior"]}, "names a candidate twice"),
        ({"kinds": ["prior", "two words", "prior"]}, "kinds: not a plain name"),
        ({"candidates": [3]}, "names a candidate twice"),
        ({"candidates": [2, 0, 1]}, "no candidates"),
        ({"candidates": [4, -1]}, "no candidates"),
        ({"candidates": [True, True, True]}, "not a list of one type"),
        ({"candidates": [], "kinds": []}, "not asked for: got 'candidates'"),
        ({"kinds": ["k"] * 5000, "candidates": [1] * 5000}, "kinds: a list is too long"),
        ({"chain": ["ab" * 32]}, "a chain of bodies without a body"),
        ({"temperatures": [0.5]}, "not pairs"),
        ({"round": -1}, "round: .*too small"),
        ({"release": "two words"}, "release: not a plain name"),
        ({"recipe.lr": float("nan")}, "recipe.lr"),
        ({"adapt": "tail"}, "neither all nor head"),
    ],
)
def test_a_field_of_a_task_that_is_not_as_agreed_is_named(changes, match):
    with pytest.raises(WireError, match=match):
        unpack_task(with_frame(**changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"body_layout": "f" * 63}, "body_layout: not a digest"),
        ({"chain": ["F" * 64]}, "chain: not a digest"),
        ({"chain": ["ab" * 32] * 4097}, "chain: a list is too long"),
        ({"chain": [7]}, "chain: not a list of one type"),
        ({"temperatures.examples": [5, 1]}, "ascending"),
        ({"keep": 0}, "keep: a number is too small"),
        ({"keep": 2.0}, "keep: .*wrong type"),
        ({"temperatures.examples": [1, 1]}, "ascending"),
        ({"temperatures.examples": [0, 1]}, "ascending"),
        ({"temperatures.examples": [1]}, "not pairs"),
        ({"temperatures": [0.5, 0.0]}, "not finite numbers above 0"),
        ({"temperatures": [0.5, float("inf")]}, "not finite numbers above 0"),
        ({"temperatures": [0.5, float("nan")]}, "not finite numbers above 0"),
        ({"temperatures": [1, 2]}, "temperatures: not a list of one type"),
        ({"candidates": [1, 1]}, "more than one episode of heads"),
        ({"adapt": "all"}, "not asked for: got 'body'"),
        ({"episodic.support": 0}, "episodic.support"),
        ({"episodic.turns": 1}, "episodic.turns: .*wrong type"),
        ({"episodic.momentum": 2.0}, "episodic.momentum"),
        ({"head.pull": -1.0}, "head.pull"),
        ({"head.context": float("nan")}, "head.context"),
        ({"head.step_pull": "much"}, "head.step_pull: .*wrong type"),
    ],
)
def test_a_field_of_a_task_with_a_body_that_is_not_as_agreed_is_named(changes, match):
    with pytest.raises(WireError, match=match):
        unpack_task(with_frame(WITH_BODY, **changes))


@pytest.mark.parametrize("shape", [(2, 8), (4, 8), (24,)])
def test_candidates_are_as_many_as_their_kinds(shape):
    content = with_array("candidates", Array(np.zeros(shape, np.float32)), pack_task(TASK))
    with pytest.raises(LayoutMismatch, match=r"candidates: .*expected \(3, any\)"):
        unpack_task(content)


def test_a_task_has_no_other_arrays():
    more = Array(np.zeros(8, np.float32))
    for name in ("body", "more"):
        with pytest.raises(WireError, match=f"not asked for: got '{name}'"):
            unpack_task(with_array(name, more, pack_task(TASK)))
    request = pack_probe_request(ProbeRequest(frame=FRAME, anchor=vector(1)))
    with pytest.raises(WireError, match="not asked for: got 'candidates'"):
        unpack_probe_request(with_array("candidates", more, request))


@pytest.mark.parametrize("unpack", [unpack_task, unpack_probe_request])
def test_a_message_of_another_kind_is_refused(unpack):
    with pytest.raises(WireError, match="missing"):
        unpack(packed())
    with pytest.raises(WireError, match="missing"):
        unpack(RecordDict())
    with pytest.raises(WireError, match="missing"):
        unpack_task(pack_probe_request(ProbeRequest(frame=FRAME, anchor=None)))
