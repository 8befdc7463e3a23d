"""Requests for networks that the gateway or the service behind it refuses."""

from __future__ import annotations

import json
import pickle
import random
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from clients.onboarding.network_requests import NetworkRequests
from clients.site.sent_log import SentLog
from clients.site.site import open_site
from clients.site.site_folder import SiteFolder
from clients.training.outgoing import probe_message
from f2l_fed.errors import F2LError
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import ProbeReply
from f2l_fed.wire.packing import pack_probe_reply
from f2l_fed.wire.reply_bound import reply_bound
from f2l_fed.wire.serialization import to_bytes
from tests.support.central import exchange, status_of
from tests.support.commands import in_process
from tests.support.gateway import require_registered
from tests.support.served import OF_ALL, OF_HEADS, Served, generate, now, served
from tests.support.small_federation import events
from tests.support.waiting import holds

OTHER = WeightLayout(("w",), ((2,),))


@pytest.fixture(scope="module", params=[OF_HEADS, OF_ALL], ids=["head", "all"])
def center(request, tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served") / "central", adapt=request.param) as center:
        yield center


def post(center: Served, site: Path, body: bytes, *headers: str) -> tuple[int, str]:
    """The status and the sentence that a request of a site gets."""
    folder = site.parent
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    lines = ["POST /v1/site/network HTTP/1.1", "host: x", "connection: close", *headers]
    if not any(line.startswith("transfer-encoding") for line in headers):
        lines.append(f"content-length: {len(body)}")
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    answer = exchange(center.gateway.port, request, tls=context)
    return status_of(answer), answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


PROMOTED = 'if-match: "00001"'


def test_what_is_no_context_is_refused_in_a_sentence(center):
    site = center.joined("odd")
    layout = center.federation.target.layout

    def reply(probes: torch.Tensor) -> bytes:
        return to_bytes(pack_probe_reply(ProbeReply(site="odd", probes=probes), layout))

    one = torch.zeros(1, layout.size)
    good = reply(one)
    rng = random.Random(3)
    for body in (
        b"",
        b"\xff" * 40,
        rng.randbytes(2000),
        good[:-7],
        good[: len(good) // 2],
        reply(one[:0]),
        reply(torch.zeros(2, layout.size)),
        reply(one.fill_(float("nan"))),
        reply(torch.full((1, layout.size), 1e30)),
        to_bytes(pack_probe_reply(ProbeReply(site="odd", probes=torch.zeros(1, 2)), OTHER)),
        pickle.dumps({"reply": 1}),
    ):
        status, said = post(center, site, body, PROMOTED)
        assert (status, set(json.loads(said))) == (400, {"error"}), body[:40]
    assert post(center, site, good)[0] == 412
    assert post(center, site, good, 'if-match: "00099"')[0] == 412
    for at in range(0, len(good), 97):
        flipped = bytearray(good)
        flipped[at] ^= 1 << rng.randrange(8)
        assert post(center, site, bytes(flipped), PROMOTED)[0] in (200, 400)
    assert generate(site)["model"]["release"] == "00001"


def test_what_is_larger_than_a_context_is_refused(center):
    site = center.joined("large")
    most = reply_bound(center.federation.target.layout, 1).bytes
    assert post(center, site, b"\0" * (most + 1), PROMOTED)[0] == 413
    chunk = b"10000\r\n" + b"\0" * 0x10000 + b"\r\n"
    chunks = chunk * (most // 0x10000 + 2) + b"0\r\n\r\n"
    assert post(center, site, chunks, PROMOTED, "transfer-encoding: chunked")[0] == 413
    assert generate(site)["model"]["release"] == "00001"


def test_nobody_asks_in_the_name_of_another_site(center):
    site = center.joined("honest")
    known = center.federation.releases.read("00001").sites[1]
    reply = ProbeReply(site=known, probes=torch.ones(1, center.federation.target.layout.size))
    body = to_bytes(pack_probe_reply(reply, center.federation.target.layout))
    assert post(center, site, body, PROMOTED, f"f2l-site: {known}")[0] == 200
    assert events(center.federation.root, "site.served")[-1]["site"] == "honest"


ASK = b"GET /v1/site/network HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def test_only_a_registered_site_is_answered(center, tmp_path):
    require_registered(center.gateway, tmp_path, ASK, "honest")


def test_a_removed_site_gets_nothing_more(center):
    site = center.joined("removed")
    requests = NetworkRequests(SiteFolder.read(site), now=now())
    release, asked = requests.context_request()
    reply = probe_message(open_site(site), asked, app=None).content
    center.gateway.membership.remove("removed", "admin")
    with pytest.raises(F2LError, match="does not know this site, or has removed it"):
        requests.task(release, reply)
    done = in_process("f2l-site", "generate", str(site))
    assert done.returncode == 1
    assert "does not know this site, or has removed it" in done.stderr
    assert SentLog.in_folder(site.parent / "state").entries() == []


def test_a_site_has_one_request_under_way(center):
    folders = [center.joined(name).parent for name in ("eager", "patient")]
    with ThreadPoolExecutor(3) as pool:
        with center.service._lock:
            first = [pool.submit(center.gateway.status, folders[0], ASK) for _ in range(2)]
            # One of the two waits for the service, the other one is refused at once.
            assert holds(lambda: any(one.done() for one in first))
            other = pool.submit(center.gateway.status, folders[1], ASK)
            assert not other.done()
        assert sorted(one.result() for one in first) == [200, 429]
        assert other.result() == 200
