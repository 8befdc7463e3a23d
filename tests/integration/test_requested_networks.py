"""A site asks for a network outside of rounds: what is measured is what it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clients.onboarding.network_requests import NetworkRequests
from clients.site.model_store import load_model, load_start
from clients.site.sent_log import SentLog
from clients.site.site import open_site
from clients.site.site_folder import SiteFolder
from clients.training.outgoing import probe_message
from clients.training.requested_network import request_network
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.finetune import STEPS
from f2l_fed.wire.packing import unpack_probe_reply, unpack_task
from server.cluster.held_out import curves_of
from tests.support.commands import in_process
from tests.support.deployment import free_ports
from tests.support.served import (
    OF_ALL,
    OF_HEADS,
    Served,
    behind_gateway,
    close,
    generate,
    now,
    served,
)
from tests.support.small_federation import events, prepared


@pytest.fixture(scope="module", params=[OF_HEADS, OF_ALL], ids=["head", "all"])
def center(request, tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served") / "central", adapt=request.param) as center:
        yield center


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


def test_a_site_in_the_release_gets_a_start_without_its_own_records_and_a_head_with_them(center):
    name = center.federation.releases.read("00001").sites[0]
    site = center.joined(name)
    requests = NetworkRequests(SiteFolder.read(site), now=now())
    release, asked = requests.context_request()
    # The examples that its records were made of.
    trained = open_site(center.federation.root / "sites" / name / "site.toml")
    reply = probe_message(trained, asked, app=None).content
    task = unpack_task(requests.task(release, reply))
    (candidates,) = task.candidates
    expected = center.federation.releases.expected("00001")[0, 0]
    if center.federation.body is not None:
        (context,) = unpack_probe_reply(reply, center.federation.target.layout).probes
        expected = center.federation.releases.generator("00001").expect(context[None])[0]
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


def test_a_server_without_the_service_is_as_good_as_none(tmp_path):
    federation, _ = prepared(tmp_path / "central", *OF_HEADS)
    with behind_gateway(federation, offered=False) as center:
        done = in_process("f2l-site", "generate", str(center.joined("early")))
    assert done.returncode == 1
    assert "no start has arrived yet, and the server makes no networks for single" in done.stderr


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
        state = site.parent / "state"
        start, network = center.measured(site, "00002")
        assert close(load_start(state).model.weights, start)
        assert close(load_model(state).weights, network)
        # Sites have measured at temperatures in the second round.
        has_temperature = center.federation.body is not None
        assert (load_start(state).temperature != 1) == has_temperature
        again = generate(site, "--offline")
        assert again["loss_before"] == pytest.approx(generate(site)["loss_before"], abs=1e-6)
