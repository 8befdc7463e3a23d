"""Messages as bytes come back as they were; other bytes are refused with a typed error."""

from __future__ import annotations

import pickle
import random

import pytest
import torch

from f2l_fed.errors import F2LError, WireError
from f2l_fed.wire.messages import ProbeReply
from f2l_fed.wire.packing import pack_probe_reply, pack_task, unpack_probe_reply, unpack_task
from f2l_fed.wire.serialization import from_bytes, to_bytes
from tests.support.messages import LAYOUT, TASK, WITH_BODY, same, vector


@pytest.mark.parametrize("task", [TASK, WITH_BODY], ids=["whole", "body"])
def test_a_task_comes_back_as_it_was(task):
    assert same(unpack_task(from_bytes(to_bytes(pack_task(task)))), task)


def test_a_probe_reply_comes_back_as_it_was():
    reply = ProbeReply(site="a", probes=torch.stack([vector(1), vector(2)]))
    data = to_bytes(pack_probe_reply(reply, LAYOUT))
    assert same(unpack_probe_reply(from_bytes(data), LAYOUT), reply)


@pytest.mark.parametrize("data", [b"\xff" * 9, b"{}", pickle.dumps({"frame": 1})])
def test_other_bytes_are_no_records(data):
    with pytest.raises(WireError, match="not made of records"):
        from_bytes(data)


def test_no_bytes_are_a_message_without_parts():
    with pytest.raises(WireError, match="a part of the message is missing"):
        unpack_task(from_bytes(b""))


def test_damaged_bytes_give_nothing_but_typed_errors():
    data, rng = to_bytes(pack_task(WITH_BODY)), random.Random(1)
    for _ in range(400):
        damaged = bytearray(data[: rng.choice((len(data), rng.randrange(len(data))))])
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            unpack_task(from_bytes(bytes(damaged)))
        except F2LError:
            continue
