"""Updates with coded arrays: relative to what was sent, and checked before they are unpacked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire import coded_rows
from f2l_fed.wire.coded_rows import coded_array, read_rows, read_vector
from f2l_fed.wire.coding import SHARE, encode
from f2l_fed.wire.messages import Update
from f2l_fed.wire.packing import may_code, pack_task, pack_update, unpack_task, unpack_update
from f2l_fed.wire.tensors import bytes_of
from tests.support.messages import SHARED, TASK, WITH_BODY, objects_of, same
from tests.support.small import rng

CLASSES, INPUTS = 5, 40
HEAD = WeightLayout(("head.weight", "head.bias"), ((CLASSES, INPUTS), (CLASSES,)))
BODY = WeightLayout(("conv", "scale"), ((30, 40), (1,)))


def near(known: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    return known + 0.01 * torch.randn(count, len(known), generator=rng(seed))


KNOWN_BODY = torch.randn(BODY.size, generator=rng(1))
KNOWN_NETWORK = torch.randn(HEAD.size, generator=rng(2))
ON_A_BODY = Update(
    site="a",
    round=4,
    chosen=("anchor",) * 4,
    weights=near(KNOWN_NETWORK, 4, 3),
    probes=near(KNOWN_NETWORK, 4, 4),
    numbers={},
    body=near(KNOWN_BODY, 1, 5)[0],
)
OF_SHARED = replace(
    ON_A_BODY, chosen=("anchor",), weights=near(KNOWN_NETWORK, 1, 6), body=None, site="b"
)
KINDS = {"a body": (ON_A_BODY, BODY, KNOWN_BODY), "shared": (OF_SHARED, None, KNOWN_NETWORK)}


def packed(kind, **changes):
    update, body, known = KINDS[kind]
    return pack_update(replace(update, **changes), HEAD, body=body, known=known)


def unpacked(content, kind, **options):
    update, body, known = KINDS[kind]
    asked = {"networks": len(update.weights), "episodes": len(update.probes), "known": known}
    return unpack_update(content, HEAD, body=body, **{**asked, **options})


def data_of(content, name):
    return bytes(bytes_of(content["arrays"][name], name))


def of_bytes(data):
    return Array(np.frombuffer(data, np.uint8))


def swapped(content, **arrays):
    for name, array in arrays.items():
        content["arrays"][name] = array
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_a_coded_update_is_near_to_what_was_packed_and_much_smaller(kind):
    update, body, _ = KINDS[kind]
    content = packed(kind)
    plain = pack_update(update, HEAD, body=body)
    assert {array.dtype for array in content["arrays"].values()} == {"uint8"}
    assert content["arrays"].count_bytes() < plain["arrays"].count_bytes() / 3
    assert objects_of(content) == objects_of(plain)
    read = unpacked(content, kind)
    for name in ("weights", "probes", "body"):
        mine, told = getattr(update, name), getattr(read, name)
        if mine is not None:
            assert told.shape == mine.shape
            # Half the largest step, beside 0.01, the root mean square change.
            assert float((told - mine).abs().max()) < 0.01 * SHARE
    assert (read.site, read.round, read.chosen) == (update.site, 4, update.chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_are_not_coded_are_read_as_ever(kind):
    update, body, _ = KINDS[kind]
    plain = pack_update(update, HEAD, body=body)
    assert same(unpacked(plain, kind), update)
    mixed = swapped(packed(kind), probes=plain["arrays"]["probes"])
    assert torch.equal(unpacked(mixed, kind).probes, update.probes)


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_coding_was_asked_for_it_is_refused(kind):
    with pytest.raises((WireError, LayoutMismatch)):
        unpacked(packed(kind), kind, known=None)


def test_a_task_is_never_coded():
    content = pack_task(TASK, may_code=True)
    rows = torch.stack([one for each in TASK.candidates for one in each.values()])
    for name, numbers in (("candidates", rows), ("anchor", TASK.anchor[None])):
        coded = of_bytes(encode(numbers.repeat(1, 50)))
        with pytest.raises((WireError, LayoutMismatch)):
            unpack_task(swapped(pack_task(TASK, may_code=True), **{name: coded}))
    assert same(unpack_task(content), TASK)


@pytest.mark.parametrize("task", [TASK, WITH_BODY, SHARED])
def test_a_task_says_whether_its_answer_may_be_coded_and_is_the_same_otherwise(task):
    asked, plain = pack_task(task, may_code=True), pack_task(task)
    assert (may_code(asked), may_code(plain)) == (True, False)
    # A site that knows no coding reads what it knows.
    assert same(unpack_task(asked), unpack_task(plain))
    del asked["frame"]["coding"]
    assert dict(asked["frame"]) == dict(plain["frame"])
    if task is TASK:
        assert not may_code(pack_task(task, protocol=3, may_code=True))


@pytest.mark.parametrize("named", [0, 2, "1", [1], 1.5])
def test_a_coding_that_is_unknown_here_is_none(named):
    content = pack_task(TASK, may_code=True)
    content["frame"]["coding"] = named
    assert not may_code(content)


def test_an_anchor_of_another_size_codes_nothing():
    plain = pack_update(OF_SHARED, HEAD, known=KNOWN_BODY)
    assert {array.dtype for array in plain["arrays"].values()} == {"float32"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["weights", "probes", "body"])
def test_a_change_that_is_not_finite_is_sent_as_it_is(kind, name):
    rows = getattr(KINDS[kind][0], name)
    if rows is None:
        return
    rows = rows.clone()
    rows.view(-1)[7] = torch.nan
    content = packed(kind, **{name: rows})
    assert content["arrays"][name].dtype == "float32"


def odd_arrays(kind):
    """For each attack, arrays in the place of honest ones."""
    update, _, known = KINDS[kind]
    content, rows = packed(kind), len(update.weights)
    more = near(KNOWN_NETWORK, rows + 1, 7)
    far = torch.randn(rows, HEAD.size + INPUTS + 1, generator=rng(8))
    relative = known if kind == "shared" else None
    data = data_of(content, "weights")
    found = {
        "more rows": of_bytes(encode(more, relative)),
        "wider rows": of_bytes(encode(far)),
        "another kind": of_bytes(encode(near(KNOWN_NETWORK, 4, 9)[:rows].repeat(1, 6))),
        "no bytes": Array(np.zeros(0, np.uint8)),
        "cut": of_bytes(data[:-5]),
        "longer": of_bytes(data + b"\x00"),
        "another type": Array(np.frombuffer(data, np.int8)),
        "a header that lies": Array(
            dtype="uint8",
            shape=(len(data) + 1,),
            stype="numpy.ndarray",
            data=of_bytes(data).data,
        ),
        "float32 that says bytes": Array(
            dtype="uint8",
            shape=tuple(update.weights.shape),
            stype="numpy.ndarray",
            data=Array(update.weights.numpy()).data,
        ),
        "bytes that say float32": Array(
            dtype="float32",
            shape=tuple(update.weights.shape),
            stype="numpy.ndarray",
            data=of_bytes(data).data,
        ),
    }
    if rows > 1:
        # One line fewer than rows about their mean have.
        found["relative heads"] = of_bytes(encode(update.weights, KNOWN_NETWORK))
    return found


@pytest.mark.parametrize(
    ("kind", "attack"), [(kind, attack) for kind in KINDS for attack in odd_arrays(kind)]
)
def test_an_array_that_is_not_as_agreed_is_refused(kind, attack):
    content = swapped(packed(kind), weights=odd_arrays(kind)[attack])
    with pytest.raises((WireError, LayoutMismatch)):
        unpacked(content, kind)


@pytest.mark.parametrize("size", [1, BODY.size - 1, BODY.size + 1])
def test_a_coded_body_is_one_row_of_its_layout(size):
    wrong = encode(torch.randn(1, max(size, 40), generator=rng(1)), torch.zeros(max(size, 40)))
    with pytest.raises(LayoutMismatch, match=r"body: .*another shape"):
        unpacked(swapped(packed("a body"), body=of_bytes(wrong)), "a body")
    two = encode(near(KNOWN_BODY, 2, 1), KNOWN_BODY)
    with pytest.raises(LayoutMismatch, match=r"body: .*another shape"):
        unpacked(swapped(packed("a body"), body=of_bytes(two)), "a body")


def test_heads_of_one_site_are_of_one_width_coded_or_not():
    fewer = ON_A_BODY.probes[:, : 3 * (INPUTS + 1)]
    for array in (of_bytes(encode(fewer)), Array(fewer.contiguous().numpy())):
        with pytest.raises(WireError, match="different numbers of classes"):
            unpacked(swapped(packed("a body"), probes=array), "a body")
    no_head = ON_A_BODY.probes[:, : 2 * (INPUTS + 1) + 1]
    both = of_bytes(encode(no_head))
    with pytest.raises((WireError, LayoutMismatch)):
        unpacked(swapped(packed("a body"), probes=both, weights=both), "a body")


def test_a_shape_is_compared_before_anything_is_unpacked(monkeypatch):
    unpacked_rows = []
    monkeypatch.setattr(coded_rows, "decode", lambda *about: unpacked_rows.append(about))
    arrays = {"rows": coded_array(near(KNOWN_NETWORK, 4, 1), KNOWN_NETWORK)}
    for shape in ((3, HEAD.size), (5, HEAD.size), (4, HEAD.size - 1), (4, HEAD.size + 1)):
        with pytest.raises(LayoutMismatch):
            read_rows(arrays, "rows", shape, KNOWN_NETWORK)
    with pytest.raises(LayoutMismatch):
        read_rows(arrays, "rows", (4, None), KNOWN_BODY)
    with pytest.raises(LayoutMismatch):
        read_vector(arrays, "rows", KNOWN_NETWORK)
    assert not unpacked_rows


def test_a_missing_array_is_named():
    content = packed("shared")
    del content["arrays"]["weights"]
    with pytest.raises(WireError, match="missing: expected weights"):
        unpacked(content, "shared")


def test_heads_on_a_frozen_body_are_coded_beside_its_one_number():
    scale, sent = WeightLayout(("scale",), ((1,),)), torch.ones(1)
    update = replace(ON_A_BODY, body=torch.full((1,), 1.5))
    content = pack_update(update, HEAD, body=scale, known=sent)
    kinds = {name: array.dtype for name, array in content["arrays"].items()}
    assert kinds == {"weights": "uint8", "probes": "uint8", "body": "float32"}
    read = unpack_update(content, HEAD, body=scale, networks=4, episodes=4, known=sent)
    assert torch.equal(read.body, update.body)
    assert float((read.weights - update.weights).abs().max()) < 0.01 * SHARE


def test_a_site_with_a_privacy_budget_sends_a_coded_body_and_no_head():
    none = torch.empty(0, HEAD.size)
    update = replace(ON_A_BODY, chosen=(), weights=none, probes=none)
    content = pack_update(update, HEAD, body=BODY, known=KNOWN_BODY)
    assert {name: a.dtype for name, a in content["arrays"].items()} == {"body": "uint8"}
    read = unpacked(content, "a body")
    assert (len(read.weights), read.chosen) == (0, ())
    assert float((read.body - update.body).abs().max()) < 0.01 * SHARE
