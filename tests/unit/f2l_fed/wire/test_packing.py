"""A message is in the version that its receiver speaks; a reply names the highest of its site."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.wire.messages import ProbeReply, ProbeRequest, Refusal
from f2l_fed.wire.packing import (
    pack_probe_reply,
    pack_probe_request,
    pack_refusal,
    pack_task,
    pack_update,
    unpack_probe_reply,
    unpack_probe_request,
    unpack_refusal,
    unpack_task,
    unpack_update,
    version_of,
)
from f2l_fed.wire.protocol import spoken_by_site
from tests.support.golden import message
from tests.support.messages import (
    BODY,
    FRAME,
    HEADS,
    LAYOUT,
    TASK,
    UPDATE,
    WITH_BODY,
    objects_of,
    same,
    vector,
)

PROBES = ProbeReply(site="a", probes=torch.stack([vector(1), vector(2)]))


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_message_comes_through_in_every_version(protocol):
    request = ProbeRequest(frame=FRAME, anchor=vector(1))
    for value, pack, unpack in (
        (request, pack_probe_request, unpack_probe_request),
        (TASK, pack_task, unpack_task),
    ):
        content = pack(value, protocol=protocol)
        assert version_of(content) == protocol
        assert same(unpack(content), value)
    update = pack_update(UPDATE, LAYOUT, protocol=protocol)
    assert same(unpack_update(update, LAYOUT, networks=2, episodes=3), UPDATE)
    reply = pack_probe_reply(PROBES, LAYOUT, protocol=protocol)
    assert same(unpack_probe_reply(reply, LAYOUT, episodes=2), PROBES)
    assert [spoken_by_site(content) for content in (update, reply)] == [4, 4]


def test_the_latest_version_is_the_default_and_has_few_objects():
    assert version_of(pack_task(TASK)) == 4
    old, new = pack_update(UPDATE, LAYOUT, protocol=3), pack_update(UPDATE, LAYOUT)
    assert (objects_of(old), objects_of(new)) == (29, 9)


def test_only_the_latest_version_has_messages_with_a_body():
    with pytest.raises(WireError, match=r"protocol 3 .* Install a newer version .* at the site"):
        pack_task(WITH_BODY, protocol=3)
    with pytest.raises(WireError, match="protocol 3"):
        pack_probe_request(ProbeRequest(frame=HEADS, anchor=None), protocol=3)
    old = pack_task(TASK, protocol=3)
    old["frame"] = ConfigRecord(
        {**pack_task(WITH_BODY)["frame"], "version": 3, "layout": LAYOUT.digest}
    )
    with pytest.raises(WireError, match="protocol 3"):
        unpack_task(old)
    with pytest.raises(WireError, match="another version"):
        unpack_update(pack_update(UPDATE, LAYOUT, protocol=3), LAYOUT, body=BODY)
    with_body = replace(UPDATE, body=vector(1, BODY))
    content = pack_update(with_body, LAYOUT, body=BODY)
    assert same(unpack_update(content, LAYOUT, body=BODY), with_body)


@pytest.mark.parametrize("version", [0, 2, 5, "3", True, None, 4.0])
def test_another_version_of_the_protocol_is_refused(version):
    content = pack_task(TASK)
    content["frame"] = ConfigRecord({**content["frame"], "version": version or 0})
    for unpack in (unpack_task, unpack_probe_request):
        with pytest.raises(WireError, match=r"expected 3 to 4, got .*\. Install"):
            unpack(content)


@pytest.mark.parametrize("shape", ["28", [0, 3], [-1], [1.5]])
@pytest.mark.parametrize("protocol", [3, 4])
def test_a_frame_is_checked_in_every_version(protocol, shape):
    content = pack_task(TASK, protocol=protocol)
    content["frame"] = ConfigRecord({**content["frame"], "input_shape": shape})
    with pytest.raises(WireError, match="input shape"):
        unpack_task(content)


def test_a_reply_that_names_no_protocol_is_one_of_an_older_site():
    for name in ("update", "probe-reply", "refusal"):
        assert spoken_by_site(message(name)) == 3
    assert spoken_by_site(pack_refusal(Refusal(site="a", code="failed"))) == 4
    assert spoken_by_site(RecordDict()) == 3


@pytest.mark.parametrize("named", ["4", 4.0, True, 0, -1, [4], 1000, 2**62])
def test_a_protocol_that_is_no_number_above_the_oldest_is_none(named):
    content = pack_refusal(Refusal(site="a", code="failed"))
    content["refusal"] = ConfigRecord({**content["refusal"], "protocol": named})
    assert spoken_by_site(content) == 3


def test_records_of_tensors_name_no_protocol():
    content = pack_update(UPDATE, LAYOUT)
    content["update"] = content["arrays"]
    assert spoken_by_site(content) == 3


def test_another_layout_is_refused_with_both_digests():
    for protocol in (3, 4):
        content = pack_update(UPDATE, LAYOUT, protocol=protocol)
        content["update"] = ConfigRecord({**content["update"], "layout": "f" * 64})
        match = f"expected {LAYOUT.digest[:12]}, got ffffffffffff"
        with pytest.raises(LayoutMismatch, match=match):
            unpack_update(content, LAYOUT)


def test_a_refusal_comes_through_and_an_answer_is_none():
    refusal = Refusal(site="a", code="too-few-examples")
    assert unpack_refusal(pack_refusal(refusal)) == refusal
    assert unpack_refusal(pack_update(UPDATE, LAYOUT)) is None


@pytest.mark.parametrize("code", ["", "x" * 6500, "[/red]", "two words", "a\x1b[2J", "ä"])
def test_a_site_of_the_oldest_protocol_may_give_a_text_which_is_cut_and_made_printable(code):
    content = pack_refusal(Refusal(site="a", code=code))
    del content["refusal"]["protocol"]
    told = unpack_refusal(content).code
    assert told.isprintable()
    assert 1 <= len(told) <= 64


@pytest.mark.parametrize("code", ["", "x" * 65, "[/red]", "two words", "a\x1b[2J", "ä"])
def test_a_refusals_code_is_nothing_but_a_code(code):
    with pytest.raises(WireError, match="no valid code"):
        unpack_refusal(pack_refusal(Refusal(site="a", code=code)))


def test_a_request_says_where_sites_may_fetch_the_release():
    for protocol in (3, 4):
        given = ProbeRequest(frame=replace(FRAME, to_sites=True), anchor=vector(1))
        content = pack_probe_request(given, protocol=protocol)
        assert unpack_probe_request(content).frame.to_sites
        content["frame"]["to_sites"] = 1
        with pytest.raises(WireError, match="to_sites is neither true nor false"):
            unpack_probe_request(content)
    kept = pack_probe_request(ProbeRequest(frame=FRAME, anchor=vector(1)))
    assert "to_sites" not in kept["frame"]
