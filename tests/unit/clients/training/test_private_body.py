"""A site with a privacy budget where all sites share a body, through the real app."""

from __future__ import annotations

import dataclasses
import json
from math import prod, sqrt

import pytest
import torch
from torch import nn

from clients.site.model_store import load_model
from clients.site.site import open_site
from clients.training.task import respond, respond_to_probe
from f2l_fed.errors import PolicyRefusal, TargetError
from f2l_fed.local_training.adapted_network import adapted_head, adapted_network
from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.probe import first_anchor
from f2l_fed.privacy.accountant import Ledger, Spending
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body, body_digest
from f2l_fed.wire.messages import ProbeRequest
from f2l_fed.wire.packing import pack_task, unpack_refusal, unpack_update
from tests.support.commands import in_process
from tests.support.sites import BODY, FIRST_BODY, body_frame, body_task, digits_site
from tests.unit.clients.test_client_app import ask, refusal, sent

PRIVATE = "[privacy]\nepsilon = 5.0\ndelta = 1e-3\nanswers = 2\n"


def normalised(input_shape, classes):
    """A network with batch normalisation."""
    size = prod(input_shape)
    layers = nn.Linear(size, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, classes)
    return nn.Sequential(nn.Flatten(), *layers)


def update_in(content):
    head = BODY.head.layout
    return unpack_update(content, head, networks=2, episodes=2, body=BODY.layout)


def ledger(folder) -> Ledger:
    record = json.loads((folder / "state/privacy.json").read_text())
    return Ledger(spent=tuple(Spending(**one) for one in record["spent"]))


def test_no_head_leaves_and_only_numbers_that_are_known(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    update = update_in(ask(site, pack_task(body_task())))
    assert update.weights.shape == update.probes.shape == (0, BODY.head.layout.size)
    assert update.chosen == ()
    assert set(update.numbers) == {"examples", "steps"}
    assert update.body is not None
    assert not torch.equal(update.body, FIRST_BODY)


def test_the_same_task_twice_has_other_noise_and_the_plain_site_none(tmp_path):
    bodies = {}
    for name, more in (("private", PRIVATE), ("plain", "")):
        site = open_site(digits_site(tmp_path / name, more=more))
        bodies[name] = [respond(site, body_task())[0].body for _ in range(2)]
    assert torch.equal(*bodies["plain"])
    assert not torch.equal(*bodies["private"])


def test_the_body_has_the_noise_that_was_paid_for(tmp_path):
    """One step from the same start: what differs between answers is the noise but for dealing."""
    more = PRIVATE.replace("answers = 2", "answers = 20\nbody_steps = 1\nbody_lr = 1.0")
    site = open_site(digits_site(tmp_path, more=more + "max_norm = 1e-4\n"))
    noised = torch.stack([respond(site, body_task())[0].body for _ in range(20)])
    spent = ledger(tmp_path).spent
    assert all(one.sampling_rate == 1 for one in spent)
    assert sum(one.steps for one in spent) == 20
    # 36 examples are dealt into two episodes of at most 1e-4 each.
    expected = 2 * 1e-4 * sqrt(sum(one.noise_multiplier**2 * one.steps for one in spent) / 20) / 2
    found = float((noised - FIRST_BODY).square().mean().sqrt())
    assert found == pytest.approx(expected, rel=0.02)


def test_the_kept_network_is_made_on_the_releases_body_without_noise(tmp_path):
    own, body = digits_site(tmp_path, more=PRIVATE), FIRST_BODY + 0.01
    ask(own, pack_task(body_task()))
    ask(own, pack_task(body_task(body, recipe=dataclasses.replace(body_task().recipe, steps=0))))
    kept, site = load_model(tmp_path / "state"), open_site(own)
    x, y, config = site.train.x, site.train.y, body_frame().head
    head = adapted_head(BODY, FIRST_BODY, None, x, y, config)
    expected = adapted_network(
        BODY, FIRST_BODY, head, x, y, config, dataclasses.replace(body_task().recipe, steps=0), None
    )
    assert kept is not None
    assert kept.facts.accuracy > 0.6
    torch.testing.assert_close(kept.weights, expected)


def test_ledger_and_record_agree_and_the_command_shows_them(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    for _ in range(2):
        ask(site, pack_task(body_task()))
    entries = sent(site)
    assert [entry["work"]["steps"] for entry in entries] == [2 + 3, 2 + 3]
    told = [entry["budget"]["spent"] for entry in entries]
    assert 0 < told[0] < told[1] <= 5.0
    assert ledger(tmp_path).epsilon(1e-3) == pytest.approx(told[1])
    assert [one.steps for one in ledger(tmp_path).spent] in ([6], [3, 3])
    # Both answers together spend the budget, and leave nothing to be spent.
    assert told[1] > 4.95
    shown = in_process("f2l-site", "sent", str(site), "--json").stdout
    assert f'"spent": {told[1]}' in shown
    assert [entry["tensors"] for entry in entries] == 2 * [{"arrays": {"body": [BODY.layout.size]}}]


def test_a_budget_that_does_not_reach_refuses_but_the_own_network_is_made(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    codes = []
    for _ in range(3):
        found = unpack_refusal(ask(site, pack_task(body_task())))
        codes.append(found.code if found else "")
    assert codes == ["", "", "privacy-budget-spent"]
    before = load_model(tmp_path / "state")
    assert refusal(ask(site, pack_task(body_task(round=7)))).code == "privacy-budget-spent"
    after = load_model(tmp_path / "state")
    assert (before.facts.round, after.facts.round) == (1, 7)


@pytest.mark.parametrize("answers", ["probe", "probe update"])
def test_a_policy_without_bodies_sends_nothing(tmp_path, answers):
    more = PRIVATE + f'[policy]\nanswers = "{answers}"\n'
    site = digits_site(tmp_path, more=more)
    assert refusal(ask(site, pack_task(body_task()))).code == "answer-not-allowed"
    assert not (tmp_path / "state/privacy.json").exists()


def test_few_steps_are_made_however_many_are_asked_and_none_cost_nothing(tmp_path):
    site = open_site(digits_site(tmp_path, more=PRIVATE))
    many, none = (body_frame(episodic=EpisodesConfig(first=steps)) for steps in (500, 0))
    untouched, _ = respond(site, body_task(frame=none))
    assert torch.equal(untouched.body, FIRST_BODY)
    assert not (tmp_path / "state/privacy.json").exists()
    respond(site, body_task(frame=many))
    assert [one.steps for one in ledger(tmp_path).spent] == [3]


def test_a_context_tells_nothing_and_costs_nothing(tmp_path):
    site = open_site(digits_site(tmp_path, more=PRIVATE))
    frame, chain = body_frame(episodes=1), body_task().chain
    request = ProbeRequest(frame=frame, anchor=FIRST_BODY, chain=chain)
    assert not respond_to_probe(site, request).probes.any()
    assert not (tmp_path / "state/privacy.json").exists()


def test_batch_normalisation_is_refused_before_anything_is_spent(tmp_path):
    name = f"{__name__}:normalised"
    body = Body.of(build_target(name, (1, 8, 8), 3))
    assert body.network.statistics
    first = first_anchor(body.network, body, body_frame().lineage)
    site = open_site(digits_site(tmp_path, more=PRIVATE + f'[policy]\ntargets = "{name}"\n'))
    frame = body_frame(target=name, layout=body.head.layout.digest, body_layout=body.layout.digest)
    with pytest.raises(TargetError, match="batch normalisation"):
        respond(site, body_task(frame=frame, anchor=first, chain=(body_digest(first),)))
    assert not (tmp_path / "state/privacy.json").exists()


def test_an_overflow_is_refused(tmp_path):
    site = open_site(digits_site(tmp_path, more=PRIVATE + "body_lr = 1e38\nmax_norm = 1e9\n"))
    with pytest.raises(PolicyRefusal, match="diverged"):
        respond(site, body_task())


def test_a_private_site_s_zeros_do_not_tell_how_many_classes_it_has(tmp_path):
    many = Body.of(build_target("mlp", (1, 8, 8), 6))
    request = ProbeRequest(
        frame=body_frame(episodes=1, classes=6, layout=many.head.layout.digest),
        anchor=FIRST_BODY,
        chain=(body_digest(FIRST_BODY),),
    )
    replies = {}
    for classes in (2, 3, 6):
        site = digits_site(tmp_path / str(classes), classes=classes, more=PRIVATE)
        replies[classes] = respond_to_probe(open_site(site), request).probes
    assert {tuple(probes.shape) for probes in replies.values()} == {(1, 2 * 33)}
    assert not any(bool(probes.any()) for probes in replies.values())
