"""Messages of wire protocol 3, as commit 80a4fc7 sent them; malformed ones get a typed error."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire import packing, protocol_3
from f2l_fed.wire.messages import Frame, ProbeReply, ProbeRequest, Task, Update
from f2l_fed.wire.protocol_3 import (
    pack_probe_reply,
    pack_probe_request,
    pack_task,
    pack_update,
    unpack_probe_reply,
    unpack_probe_request,
    unpack_task,
    unpack_update,
)
from f2l_fed.wire.tensors import read_array
from tests.support.golden import V3, held_by, message, to_bytes
from tests.support.small import rng

LAYOUT = WeightLayout(("w", "b"), ((2, 3), (2,)))
FRAME = Frame(
    lineage="mlp/3",
    target="mlp",
    classes=2,
    input_shape=(3,),
    layout=LAYOUT.digest,
    episodes=3,
    shots=5,
    probe=Recipe(steps=10, lr=0.05, momentum=0.9),
)


def vector(seed):
    return torch.randn(LAYOUT.size, generator=rng(seed))


TASK = Task(
    frame=FRAME,
    anchor=vector(6),
    round=4,
    release="0003",
    recipe=Recipe(steps=15, lr=0.03, momentum=0.9, batch=50, max_gradient_norm=2.5),
    candidates=({"prior": vector(0), "sample-0": vector(1)}, {"prior": vector(4)}),
)
UPDATE = Update(
    site="a",
    round=4,
    chosen=("sample-0", "prior"),
    weights=torch.stack([vector(2), vector(7)]),
    probes=torch.stack([vector(3), vector(8), vector(9)]),
    numbers={"examples": 40.0, "loss_after": 0.25},
)


def same(a, b):
    """Equality of messages that hold tensors."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Task | Update | ProbeReply | ProbeRequest):
        return all(same(getattr(a, name), getattr(b, name)) for name in type(a).__slots__)
    return a == b


def packed():
    return pack_update(UPDATE, LAYOUT)


def refused(content, match, error=WireError):
    with pytest.raises(error, match=match):
        unpack_update(content, LAYOUT)


def test_every_message_comes_through_as_it_was():
    for anchor in (None, vector(1)):
        request = ProbeRequest(frame=FRAME, anchor=anchor)
        assert same(unpack_probe_request(pack_probe_request(request)), request)
    assert same(unpack_task(pack_task(TASK)), TASK)
    assert same(unpack_update(packed(), LAYOUT), UPDATE)
    reply = ProbeReply(site="a", probes=vector(5)[None])
    assert same(unpack_probe_reply(pack_probe_reply(reply, LAYOUT), LAYOUT), reply)


def test_a_task_without_candidates_starts_from_the_anchor():
    bare = replace(TASK, candidates=(), release="", anchor=None)
    assert same(unpack_task(pack_task(bare)), bare)


def test_an_update_carries_the_networks_tensors_and_the_declared_numbers_and_nothing_else():
    content = packed()
    tensors = {"weights.0", "weights.1", "probe.0", "probe.1", "probe.2"}
    assert set(content) == {"update", "numbers"} | tensors
    assert set(content["update"]) == {"site", "round", "chosen", "episodes", "layout"}
    assert dict(content["numbers"]) == UPDATE.numbers
    for key in tensors:
        shapes = {name: tuple(array.shape) for name, array in content[key].items()}
        assert shapes == dict(zip(LAYOUT.names, LAYOUT.shapes, strict=True))
        assert {array.dtype for array in content[key].values()} == {"float32"}


def test_unpacked_tensors_are_the_receivers_own():
    content = packed()
    unpack_update(content, LAYOUT).weights.zero_()
    unpack_task(task := pack_task(TASK)).candidates[0]["prior"].zero_()
    assert same(unpack_update(content, LAYOUT), UPDATE)
    assert same(unpack_task(task), TASK)


@pytest.mark.parametrize("key", ["update", "weights.1", "probe.0"])
def test_a_missing_part_is_named(key):
    content = packed()
    del content[key]
    refused(content, f"missing: expected {key}")


@pytest.mark.parametrize("key", ["frame", "task", "candidates.1"])
def test_a_missing_part_of_a_task_is_named(key):
    content = pack_task(TASK)
    del content[key]
    with pytest.raises(WireError, match=f"missing: expected {key}"):
        unpack_task(content)


def test_an_update_may_keep_all_its_numbers_to_itself():
    content = packed()
    del content["numbers"]
    assert unpack_update(content, LAYOUT).numbers == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("site", 3),
        ("round", "4"),
        ("round", 4.0),
        ("round", True),
        ("chosen", "prior"),
        ("episodes", "3"),
        ("layout", 0),
    ],
)
def test_a_field_of_the_wrong_type_is_named(key, value):
    content = packed()
    content["update"] = ConfigRecord({**content["update"], key: value})
    refused(content, f"{key}: .*wrong type")


def test_another_layout_is_refused_with_both_digests():
    content = packed()
    content["update"] = ConfigRecord({**content["update"], "layout": "f" * 64})
    refused(content, f"expected {LAYOUT.digest[:12]}, got ffffffffffff", LayoutMismatch)
    reply = pack_probe_reply(ProbeReply(site="a", probes=vector(0)[None]), LAYOUT)
    other = WeightLayout(("w",), ((8,),))
    with pytest.raises(LayoutMismatch, match=other.digest[:12]):
        unpack_probe_reply(reply, other)


def with_tensor(name, array, key="weights.0"):
    content = packed()
    content[key] = ArrayRecord({**content[key], name: array})
    return content


@pytest.mark.parametrize("key", ["weights.1", "probe.0"])
def test_a_tensor_of_another_shape_or_name_is_refused(key):
    wrong = Array(np.zeros((3, 2), np.float32))
    refused(with_tensor("w", wrong, key), rf"{key}: .*expected w \(2, 3\)", LayoutMismatch)
    refused(with_tensor("extra", wrong, key), f"{key}: .*got extra", LayoutMismatch)
    content = packed()
    content[key] = ArrayRecord({"w": content[key]["w"]})
    refused(content, rf"{key}: .*expected b \(2,\)", LayoutMismatch)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_a_tensor_of_another_type_is_refused(dtype):
    refused(with_tensor("b", Array(np.zeros(2, dtype))), "b: .*expected float32, got " + dtype)


def npy(shape=(2,), dtype="float32", header=None):
    """An array's bytes; or such with another header."""
    data = Array(np.zeros(shape, dtype)).data
    if header is None:
        return data
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%b), }\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04 an archive",
        npy()[:-1],
        npy() + b"\x00",
        npy(shape=(1, 2)),
        npy(dtype="float64", shape=(1,)),
        npy(header=b"((((\n"),
        npy(header=b"'''\n"),
        npy(header=b"  a\n b\n"),
        npy(header=HEADER % b"1000000000000000,"),
        npy(header=HEADER % b"99999999999999999999,"),
        npy(header=HEADER % b"-2,"),
        npy(header=HEADER.replace(b"<f4", b"|O") % b"2,"),
        npy(header=HEADER.replace(b"<f4", b">f4") % b"2,"),
    ],
)
def test_bytes_that_are_not_the_array_they_claim_to_be_are_refused(data):
    lie = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=data)
    refused(with_tensor("b", lie), "b: a tensor disagrees with its header")


def test_the_headers_that_numpy_writes_are_read():
    assert npy(header=HEADER % b"2,") != npy()
    plain = Array(dtype="float32", shape=(2,), stype="numpy.ndarray",
                  data=npy(header=HEADER % b"2,"))  # fmt: skip
    assert unpack_update(with_tensor("b", plain), LAYOUT).weights[0, -2:].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 10**30), (0, 2**63)])
def test_a_shape_that_no_array_can_have_is_refused(shape):
    values = bytes(4 * math.prod(shape))
    header = HEADER.replace(b"(%b)", repr(shape).encode())
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values
    lie = Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=data)
    refused(with_tensor("b", lie), "another layout: expected b", LayoutMismatch)
    with pytest.raises(WireError, match="b: a tensor has an invalid shape"):
        read_array(lie, "b")


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, 127), byte=st.integers(0, 255), shape=st.sampled_from([(2,), (3,), (-2,)]))
def test_no_damaged_header_ends_in_anything_but_a_typed_error(at, byte, shape):
    data = bytearray(npy())
    data[at] = byte
    array = Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=bytes(data))
    try:
        weights = unpack_update(with_tensor("b", array), LAYOUT).weights
    except (WireError, LayoutMismatch):
        return
    assert weights.shape == (2, LAYOUT.size)


def test_tensors_packed_by_another_library_are_refused():
    odd = Array(dtype="float32", shape=(2,), stype="pickle", data=npy())
    refused(with_tensor("b", odd), "b: a tensor has the wrong type")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [0.5]])
def test_numbers_that_are_no_finite_numbers_are_refused(value):
    content = packed()
    content["numbers"] = MetricRecord({"loss_after": value})
    refused(content, "loss_after: a declared number is not finite")


def test_unknown_declared_numbers_are_refused():
    content = packed()
    content["numbers"] = MetricRecord({"examples": 4.0, "age": 33.0})
    refused(content, "unknown declared number: got 'age'")


def with_frame(**changes):
    content = pack_task(TASK)
    content["frame"] = ConfigRecord({**content["frame"], **changes})
    return content


@pytest.mark.parametrize("shape", ["28", [0, 3], [-1], [1.5]])
def test_an_input_shape_is_a_list_of_sizes(shape):
    with pytest.raises(WireError, match="input shape"):
        unpack_task(with_frame(input_shape=shape))


@pytest.mark.parametrize(
    ("key", "value"),
    [("probe.lr", "fast"), ("probe.lr", -1.0), ("probe.lr", float("nan")), ("probe.steps", -1),
     ("probe.momentum", 2.0)],
)  # fmt: skip
def test_a_recipe_that_cannot_stand_is_refused_by_name(key, value):
    with pytest.raises(WireError, match=key):
        unpack_task(with_frame(**{key: value}))


@pytest.mark.parametrize("unpack", [unpack_task, unpack_probe_request])
def test_a_message_of_another_kind_is_refused(unpack):
    with pytest.raises(WireError, match="missing"):
        unpack(packed())
    with pytest.raises(WireError, match="missing"):
        unpack(RecordDict())


RECORDED = build_target("mlp", (2,), 3).layout
OF_SITES = ("update", "first-update", "probe-reply")
KINDS = {"first-task": "task", "first-update": "update"}
LATER = {
    **{
        "shared_labels": False,
        "nearest": False,
        "to_sites": False,
        "adapt": "all",
        "body_layout": "",
    },
    **{"episodic": None, "head": None, "body": None, "chain": (), "temperatures": ()},
    **{"keep": 1, "shared": None, "frozen": None, "scales": ""},
}


def plain(value: Any) -> Any:
    """A message as JSON, tensors by their digest."""
    if isinstance(value, Tensor):
        data = value.contiguous().numpy()
        digest = sha256(data.tobytes()).hexdigest()
        return {
            "shape": list(data.shape),
            "sha256": digest,
            "first": [float(v) for v in data.ravel()[:4]],
        }
    if is_dataclass(value):
        told = {field.name: getattr(value, field.name) for field in fields(value)}
        # Later fields, which are absent here.
        return {name: plain(one) for name, one in told.items() if LATER.get(name, ...) is not one}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


@pytest.mark.parametrize("name", sorted(path.stem for path in (V3 / "wire").glob("*.bin")))
def test_a_recorded_message_is_read_and_written_to_the_byte(name):
    kind = KINDS.get(name, name).replace("-", "_")
    layout = (RECORDED,) if name in OF_SITES else ()
    value = getattr(packing, f"unpack_{kind}")(message(name), *layout)
    assert plain(value) == held_by(name)
    module = packing if kind == "refusal" else protocol_3
    packed = getattr(module, f"pack_{kind}")(value, *layout)
    if kind == "refusal":
        # Later sites name their protocol in every reply; the rest is as it was.
        assert packed["refusal"].pop("protocol") == 4
    assert to_bytes(packed) == (V3 / "wire" / f"{name}.bin").read_bytes()
