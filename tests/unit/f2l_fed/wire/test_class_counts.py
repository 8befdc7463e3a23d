"""Heads on the wire have the rows of their site; any other width gets a typed error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import padded
from f2l_fed.wire.messages import ProbeReply
from f2l_fed.wire.protocol_4 import (
    pack_probe_reply,
    pack_task,
    pack_update,
    unpack_probe_reply,
    unpack_task,
    unpack_update,
)
from tests.support.messages import BODY, UPDATE, WITH_BODY, vector
from tests.support.small import rng

LARGEST = Body.of(build_target("mlp", (4,), 12)).head.layout
ROW = LARGEST.size // 12


def ragged(weights=5 * ROW, probes=5 * ROW):
    """An update of a site whose heads have these widths, and the message."""
    update = replace(
        UPDATE,
        chosen=("anchor",) * 2,
        weights=torch.randn(2, weights, generator=rng(1)),
        probes=torch.randn(2, probes, generator=rng(2)),
        body=vector(4, BODY),
    )
    return update, pack_update(update, LARGEST, body=BODY)


@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_heads_come_with_the_rows_of_their_site_and_are_padded(classes):
    update, content = ragged(classes * ROW, classes * ROW)
    assert tuple(content["arrays"]["weights"].shape) == (2, classes * ROW)
    found = unpack_update(content, LARGEST, body=BODY, networks=2, episodes=2)
    assert torch.equal(found.weights, padded(update.weights, LARGEST))
    assert torch.equal(found.probes, padded(update.probes, LARGEST))
    reply = ProbeReply(site="a", probes=update.probes)
    told = unpack_probe_reply(pack_probe_reply(reply, LARGEST), LARGEST, body=BODY, episodes=2)
    assert torch.equal(told.probes, padded(reply.probes, LARGEST))


@pytest.mark.parametrize("width", [ROW, 3 * ROW - 1, 13 * ROW, 1])
def test_heads_of_no_number_of_classes_are_refused_in_one_sentence(width):
    told = f"expected {ROW} numbers for each of 2 to 12 classes, got {width} numbers"
    _, content = ragged(width, width)
    with pytest.raises(LayoutMismatch, match=told):
        unpack_update(content, LARGEST, body=BODY, networks=2, episodes=2)
    reply = ProbeReply(site="a", probes=torch.ones(2, width))
    with pytest.raises(LayoutMismatch, match=told):
        unpack_probe_reply(pack_probe_reply(reply, LARGEST), LARGEST, body=BODY, episodes=2)


def test_heads_of_one_site_have_one_number_of_classes():
    _, content = ragged(5 * ROW, 3 * ROW)
    with pytest.raises(WireError, match="different numbers of classes"):
        unpack_update(content, LARGEST, body=BODY, networks=2, episodes=2)


@pytest.mark.parametrize("shape", [(5 * ROW,), (2, 5, ROW), (1, 5 * ROW), (2, 0), ()])
def test_heads_that_are_no_rows_are_refused(shape):
    _, content = ragged()
    probes = Array(np.ones(shape, np.float32))
    content["arrays"] = ArrayRecord({**content["arrays"], "probes": probes})
    with pytest.raises((LayoutMismatch, WireError)):
        unpack_update(content, LARGEST, body=BODY, networks=2, episodes=2)


def test_only_heads_may_have_fewer_rows():
    _, content = ragged()
    arrays = {name: array for name, array in content["arrays"].items() if name != "body"}
    content["arrays"] = ArrayRecord(arrays)
    with pytest.raises(LayoutMismatch, match="another shape"):
        unpack_update(content, LARGEST, networks=2, episodes=2)


def test_a_generated_head_goes_down_with_the_rows_of_its_site():
    head = torch.randn(3 * ROW, generator=rng(3))
    task = replace(WITH_BODY, candidates=({"prior": head},))
    content = pack_task(task)
    assert tuple(content["arrays"]["candidates"].shape) == (1, 3 * ROW)
    assert torch.equal(unpack_task(content).candidates[0]["prior"], head)
