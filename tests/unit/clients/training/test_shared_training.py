"""A site's answer where all sites share a network: within its policy, and the same every time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clients.site.policy import Work
from clients.site.site import open_site
from clients.training import shared_training
from clients.training.accepted_request import accept, work_of
from clients.training.task import respond, respond_to_probe
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.config import Recipe, SharedConfig
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import ProbeRequest, Task
from tests.support.sites import digits_site, frame
from tests.support.small import rng

TARGET = build_target("mlp", (1, 8, 8), 3)
AGREED = "\n[policy]\nshared_labels = true\n"


def shared_frame(**settings):
    return replace(frame(), shots=4, shared_labels=True, shared=SharedConfig(**settings))


def task(release="00001", **settings):
    network = TARGET.initialise(rng(2))
    return Task(
        frame=shared_frame(**settings),
        anchor=network if release else None,
        round=int(release or 0) + 1,
        release=release,
        recipe=Recipe(steps=0),
        candidates=({"prior": network},) if release else (),
    )


def site(folder, more=AGREED):
    return open_site(digits_site(folder, more=more))


def test_an_answer_is_one_network_with_its_contexts_and_the_same_every_time(tmp_path):
    found = [respond(site(tmp_path / name), task())[0] for name in "ab"]
    for update in found:
        assert update.chosen == ("prior",)
        assert update.weights.shape == (1, TARGET.layout.size)
        assert update.probes.shape == (2, TARGET.layout.size)
        assert "steps" not in update.numbers
    assert torch.equal(found[0].weights, found[1].weights)
    assert torch.equal(found[0].probes, found[1].probes)
    request = ProbeRequest(frame=shared_frame(), anchor=task().anchor)
    assert torch.equal(respond_to_probe(site(tmp_path / "a"), request).probes, found[0].probes)


def test_after_the_early_rounds_a_sites_own_network_is_made_of_what_it_returned_last(tmp_path):
    one, later = site(tmp_path), task("00006")
    before = shared_training.own_network(accept(one, later, app=""))
    update, _ = respond(one, replace(later, round=6))
    after = shared_training.own_network(accept(one, later, app=""))
    sharing_middle = (later.candidates[0]["prior"] + update.weights[0]) / 2
    moved = after.start - before.start
    torch.testing.assert_close(moved, sharing_middle - later.candidates[0]["prior"])
    early = shared_training.own_network(accept(one, task("00002"), app=""))
    torch.testing.assert_close(early.start, before.start)


def test_a_round_that_is_asked_for_again_makes_the_same_network(tmp_path):
    one = site(tmp_path)
    respond(one, task("00006"))
    asked = replace(task("00007"), round=8)
    first = shared_training.own_network(accept(one, asked, app=""))
    respond(one, asked)
    again = shared_training.own_network(accept(one, asked, app=""))
    assert torch.equal(again.weights, first.weights)
    assert len(list(one.state.glob("returned-*"))) == 2
    respond(one, replace(asked, round=9))
    assert len(list(one.state.glob("returned-*"))) == 2


def test_after_a_rollback_what_went_on_from_the_later_release_does_not_count(tmp_path):
    one = site(tmp_path)
    plain = shared_training.own_network(accept(one, replace(task("00006"), round=9), app=""))
    respond(one, replace(task("00007"), round=8))
    found = shared_training.own_network(accept(one, replace(task("00006"), round=9), app=""))
    assert torch.equal(found.weights, plain.weights)
    on = shared_training.own_network(accept(one, replace(task("00007"), round=9), app=""))
    assert not torch.equal(on.weights, plain.weights)


def test_a_private_site_does_not_tell_that_its_plain_passes_overflow(tmp_path, monkeypatch):
    def overflow(accepted):
        raise PolicyRefusal("diverged")

    one = site(tmp_path, more=AGREED + "\n[privacy]\nepsilon = 8.0\n")
    monkeypatch.setattr(shared_training, "passes", overflow)
    update, _ = respond(one, replace(task("00001"), round=2))
    assert update.weights.isfinite().all()


def test_the_work_of_all_passes_is_counted(tmp_path):
    one, asked = site(tmp_path), task("00006", epochs=2)
    count = len(one.train.y)
    passes = -(-count // 10)
    found = work_of(one, asked)
    assert found == Work(
        episodes=2, networks=1, steps=4 * passes + 2 * 3, examples=10, anchor=found.anchor
    )


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"epochs": 10**6, "most_steps": 10**6}, "too-many-steps"),
        ({"lr": 2.0}, "learning-rate-too-high"),
        ({"own_lr": 2.0, "early_rounds": 0}, "learning-rate-too-high"),
        ({"batch": 2}, "too-few-examples-a-step"),
    ],
)
def test_settings_beyond_the_policy_are_refused(tmp_path, settings, code):
    with pytest.raises(PolicyRefusal, match=code):
        respond(site(tmp_path), task(**settings))


def test_a_site_that_was_not_told_of_shared_labels_refuses_a_network_with_a_head(tmp_path):
    with pytest.raises(PolicyRefusal, match="anchor-with-head"):
        respond(site(tmp_path, more=""), task())


def test_a_context_on_too_few_examples_is_refused(tmp_path):
    asked = task()
    few = replace(asked, frame=replace(asked.frame, shots=1))
    with pytest.raises(PolicyRefusal, match="too-few-examples-a-step"):
        respond(site(tmp_path), few)
    enough = replace(asked, frame=replace(asked.frame, shots=4))
    assert respond(site(tmp_path), enough)[0].probes.isfinite().all()


def test_in_the_first_round_the_anchor_is_rebuilt(tmp_path):
    update, changes = respond(site(tmp_path), task(""))
    assert update.chosen == ("anchor",)
    assert changes[0] > 0
    forged = replace(task(""), anchor=TARGET.initialise(rng(3)))
    with pytest.raises(PolicyRefusal, match="anchor-not-rebuilt"):
        respond(site(tmp_path), forged)
