"""A site asks for a network outside of rounds: what is measured is what it gets."""

from __future__ import annotations

import json
import pickle
import random
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from clients.onboarding.kit import read_kit
from clients.onboarding.network_requests import NetworkRequests
from clients.site.model_store import load_model, load_start
from clients.site.sent_log import SentLog
from clients.site.site import SiteFolder, open_site
from clients.training.outgoing import probe_message
from clients.training.requested_network import request_network
from f2l_fed.errors import F2LError
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite, starts
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.finetune import STEPS, finetune
from f2l_fed.local_training.site_streams import NO_ROUND, steps_stream
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import ProbeReply
from f2l_fed.wire.packing import pack_probe_reply, unpack_task
from f2l_fed.wire.reply_bound import reply_bound
from f2l_fed.wire.serialization import to_bytes
from server.cluster.held_out import curves_of, served_release
from server.federation.folder import Federation
from server.generator.network_service import NetworkService
from server.membership.network_api import Networks
from server.pki.certificate_store import create_authority, issue
from tests.support.central import exchange, status_of
from tests.support.commands import in_process
from tests.support.conducted import after_rounds
from tests.support.deployment import free_ports
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.small_federation import ANY_RELEASE, FEW, events, prepared

OTHER = WeightLayout(("w",), ((2,),))
SETTINGS = (*FEW, *ANY_RELEASE, "local.steps=5", "local.batch=10", "head.pairs=2")
OF_HEADS, OF_ALL = ("target.adapt=head", "episodes.first=3", "episodes.steps=2"), ()


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A federation behind its gateway.

    Args:
        federation: Its folder, with a release.
        gateway: The gateway.
    """

    federation: Federation
    gateway: RunningGateway

    def joined(self, name: str, more: str = "") -> Path:
        """The ``site.toml`` of a site that came with a kit and some of a training site's data."""
        kit = self.gateway.kit(name)
        fingerprint = read_kit(kit, now=now()).short_fingerprint
        folder = self.gateway.root.parent / name
        data = next((self.federation.root / "sites").glob("*/train.npz"))
        done = in_process(
            "f2l-site", "init", str(kit), "--data", str(data), "--into", str(folder),
            "--fingerprint", fingerprint,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path = folder / "site.toml"
        path.write_text(path.read_text() + more)
        return path

    def measured(self, site: Path, release: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What evaluation says that a site gets: the start of its network, and the network."""
        opened, served = open_site(site), served_release(self.federation, release)
        train, held_back = (opened.train, opened.validation)
        held_out = HeldOutSite(
            name=opened.config.name, train=(train.x, train.y), test=(held_back.x, held_back.y)
        )
        start = starts(served, held_out)[GENERATED]
        steps = steps_stream(served.lineage, NO_ROUND, held_out.name)
        recipe = self.federation.config.local
        pull = served.pulls(held_out).get(GENERATED, 0.0)
        network = finetune(served.network, start, train.x, train.y, recipe, steps, pull=pull)
        return start, network


@contextmanager
def served(root: Path, *, adapt: tuple[str, ...], rounds: int = 1) -> Iterator[Served]:
    federation = after_rounds(root, rounds, settings=(*SETTINGS, *adapt))
    with behind_gateway(federation) as center:
        yield center


@contextmanager
def behind_gateway(federation: Federation) -> Iterator[Served]:
    bound = reply_bound(federation.target.layout, 1).bytes
    networks = Networks(service=NetworkService(federation.root), largest_bytes=bound)
    with gateway_running(
        federation.root, networks=networks, largest_context_bytes=bound
    ) as gateway:
        yield Served(federation=federation, gateway=gateway)


@pytest.fixture(scope="module", params=[OF_HEADS, OF_ALL], ids=["head", "all"])
def center(request, tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served") / "central", adapt=request.param) as center:
        yield center


def generate(site: Path, *more: str) -> dict:
    done = in_process("f2l-site", "generate", str(site), "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-6)


def test_a_newcomer_gets_the_network_that_evaluation_measures(center):
    site = center.joined("newcomer")
    shown = generate(site)
    state = site.parent / "state"
    start, network = center.measured(site, "00001")
    assert close(load_start(state).model.weights, start)
    assert close(load_model(state).weights, network)
    facts = shown["model"]
    assert (facts["round"], facts["release"], facts["steps"]) == (0, "00001", 5)
    assert (facts["chosen"] == PRIOR) or center.federation.body is None
    (entry,) = SentLog.in_folder(state).entries()
    assert (entry["kind"], entry["round"], entry["work"]["episodes"]) == ("probe", 0, 1)
    assert entry["tensors"] == {"arrays": {"probes": [1, center.federation.target.layout.size]}}
    assert events(center.federation.root, "site.served")[-1]["site"] == "newcomer"


def test_the_figures_of_a_table_are_those_of_the_network(center):
    site = center.joined("figured")
    facts = generate(site)["model"]
    opened = open_site(site)
    held_out = HeldOutSite(
        name="figured",
        train=(opened.train.x, opened.train.y),
        test=(opened.validation.x, opened.validation.y),
    )
    curves = curves_of(center.federation.root, "00001", [held_out], [GENERATED])
    curve = dict(zip(STEPS, curves["figured"][GENERATED], strict=True))
    assert curve[0] == pytest.approx(facts["accuracy_before"], abs=1e-6)
    assert curve[5] == pytest.approx(facts["accuracy"], abs=1e-6)


def test_a_site_in_the_release_gets_what_is_expected_without_its_own_records(center):
    name = center.federation.releases.read("00001").sites[0]
    site = center.joined(name)
    requests = NetworkRequests(SiteFolder.read(site), now=now())
    release, asked = requests.context_request()
    reply = probe_message(open_site(site), asked, app=None).content
    task = unpack_task(requests.task(release, reply))
    (candidates,) = task.candidates
    expected = center.federation.releases.expected("00001")[0, 0]
    assert close(candidates[PRIOR], expected)
    shown = generate(site)
    assert shown["model"]["release"] == "00001"


def test_the_number_of_steps_is_the_operators_if_they_say_one(center):
    site = center.joined("stepping")
    assert generate(site, "--steps", "0")["model"]["steps"] == 0
    state = site.parent / "state"
    assert torch.equal(load_start(state).model.weights, load_model(state).weights)
    assert generate(site, "--offline", "--steps", "3")["model"]["steps"] == 3
    assert len(SentLog.in_folder(state).entries()) == 1


def test_the_server_keeps_an_event_and_nothing_else(center):
    site = center.joined("unknown")

    def kept() -> dict[Path, bytes]:
        root = center.federation.root
        return {
            path: path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != "events.jsonl"
        }

    before = kept()
    generate(site)
    assert kept() == before
    event = events(center.federation.root, "site.served")[-1]
    assert set(event) == {"event", "time", "site", "release"}


def test_a_release_is_read_once_for_many_requests(center):
    site = center.joined("again")
    start = generate(site)["loss_before"]
    file = center.federation.releases.path / "00001/generator.safetensors"
    away = file.rename(file.with_suffix(".away"))
    try:
        assert generate(site)["loss_before"] == start
    finally:
        away.rename(file)


def test_a_policy_holds_for_requests_of_ones_own_too(center):
    for name, policy, code in (
        ("silent", 'answers = "update body"', "answer-not-allowed"),
        ("small", "maximum_download_bytes = 100", "request-too-large"),
        ("few", "minimum_examples = 1000", "too-few-examples"),
    ):
        site = center.joined(name)
        key = policy.partition(" ")[0]
        text = site.read_text()
        site.write_text(re.sub(rf"(?m)^{key} = .*$", policy, text, count=1))
        done = in_process("f2l-site", "generate", str(site))
        assert done.returncode == 1
        assert code in done.stderr
        assert SentLog.in_folder(site.parent / "state").entries() == []


def test_a_day_has_so_many_answers(center):
    site = center.joined("often")
    site.write_text(re.sub(r"(?m)^answers_per_day = .*$", "answers_per_day = 1", site.read_text()))
    generate(site)
    done = in_process("f2l-site", "generate", str(site))
    assert "too-many-answers-today" in done.stderr
    assert len(SentLog.in_folder(site.parent / "state").entries()) == 1


def test_a_site_with_a_privacy_budget(center):
    site = center.joined("private")
    text = re.sub(r"(?m)^epsilon = .*$", "epsilon = 8.0", site.read_text())
    site.write_text(text)
    facts = generate(site)["model"]
    (entry,) = SentLog.in_folder(site.parent / "state").entries()
    if center.federation.body is None:
        assert entry["budget"]["spent"] > 0
        return
    # Nothing of the examples has left, and the body alone has come.
    assert entry["norms"] == {"probes.0": 0.0}
    assert entry["budget"]["spent"] == 0
    assert facts["chosen"] == "anchor"


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
    gateway = center.gateway
    assert gateway.status(None, ASK) == 401
    create_authority(tmp_path / "other")
    assert gateway.status(issue(tmp_path / "other", "north", "site"), ASK) == 0
    ghost = issue(gateway.root / "certificates", "ghost", "site")
    assert gateway.status(ghost, ASK) == 401
    admin = issue(gateway.root / "certificates", "boss", "admin")
    assert gateway.status(admin, ASK) == 401
    # Past the gateway, on the port for an external one, there is no such service.
    with socket.create_connection(("127.0.0.1", gateway.enrolment)) as plain:
        plain.sendall(ASK.replace(b"host: x", b"host: localhost\r\nf2l-site: honest"))
        assert status_of(plain.recv(100)) == 404


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


def test_without_a_server_the_network_is_made_from_the_kept_start(center):
    site = center.joined("cut-off")
    text = site.read_text()
    (port,) = free_ports(1)
    offline = text.replace(f"localhost:{center.gateway.port}", f"localhost:{port}")
    site.write_text(offline)
    done = in_process("f2l-site", "generate", str(site))
    assert "no start has arrived yet, and the server can't be reached" in done.stderr
    site.write_text(text)
    online = generate(site)
    site.write_text(offline)
    done = in_process("f2l-site", "generate", str(site), "--json")
    assert done.returncode == 0
    assert "the server can't be reached" in done.stderr
    assert "The network is made from the latest start." in done.stderr
    assert json.loads(done.stdout)["loss_before"] == pytest.approx(online["loss_before"])


def test_before_the_first_release_there_is_one_sentence(tmp_path):
    federation, _ = prepared(tmp_path / "central", *OF_HEADS)
    with behind_gateway(federation) as center:
        done = in_process("f2l-site", "generate", str(center.joined("early")))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the federation has no release yet" in done.stderr


@pytest.mark.parametrize("adapt", [OF_HEADS, OF_ALL], ids=["head", "all"])
def test_a_rollback_between_two_requests_begins_anew(tmp_path, adapt):
    with served(tmp_path / "central", adapt=adapt, rounds=2) as center:
        releases = center.federation.releases
        site = center.joined("between")
        asked = NetworkRequests(SiteFolder.read(site), now=now())

        class RolledBack:
            """The server, which goes back to the release before after the first request."""

            def context_request(self):
                told = asked.context_request()
                if told[0] == "00002":
                    releases.rollback()
                return told

            def task(self, release, context):
                found = asked.task(release, context)
                assert (found is None) == (release == "00002")
                return found

        model, start, _ = request_network(open_site(site), RolledBack())
        assert model.facts.release == "00001"
        assert close(start.model.weights, center.measured(site, "00001")[0])
        kinds = [entry["kind"] for entry in SentLog.in_folder(site.parent / "state").entries()]
        assert kinds == ["probe", "probe"]
        releases.promote("00002")
        assert generate(site)["model"]["release"] == "00002"
        assert close(
            load_start(site.parent / "state").model.weights, center.measured(site, "00002")[0]
        )
