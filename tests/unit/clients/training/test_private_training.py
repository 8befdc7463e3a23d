"""A site with a privacy budget, through the real app."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from clients.onboarding.preflight import check
from clients.site.model_store import load_model, load_start
from clients.site.privacy_budget import Budget, PrivacyConfig
from f2l_fed.errors import ConfigError, PolicyRefusal
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import PROBE_ACTION, ProbeRequest, Task
from f2l_fed.wire.packing import (
    pack_probe_request,
    pack_task,
    unpack_probe_reply,
    unpack_refusal,
    unpack_update,
)
from tests.support.sites import digits_site, frame
from tests.unit.clients.test_client_app import ask, refusal, sent

TARGET = build_target("mlp", frame().input_shape, 3)
PRIVATE = "[privacy]\nepsilon = 5.0\ndelta = 1e-3\nanswers = 2\n"


def later(episodes=2, steps=4, **kinds):
    """A task of a later round; with these candidates in every episode."""
    return pack_task(
        Task(
            frame=dataclasses.replace(frame(), episodes=episodes),
            anchor=None,
            round=3,
            release="00002",
            recipe=Recipe(steps=steps, batch=10),
            candidates=(kinds,) * episodes,
        )
    )


def networks(seed):
    return TARGET.initialise(torch.Generator().manual_seed(seed))


def update_in(content):
    return unpack_update(content, TARGET.layout)


def test_what_leaves_is_not_what_the_site_keeps(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    candidates = {"prior": networks(1), "sample-0": networks(2)}
    update = update_in(ask(site, later(**candidates)))
    model, start = load_model(tmp_path / "state"), load_start(tmp_path / "state")
    assert model is not None
    assert start is not None
    assert update.chosen == ("prior", "prior")
    assert torch.equal(update.weights[0], update.weights[1])
    assert torch.equal(update.probes[0], update.probes[1])
    change = update.weights[0] - candidates["prior"]
    kept = model.weights - start.model.weights
    assert float(torch.cosine_similarity(change, kept, dim=0)) < 0.9
    assert set(update.numbers) == {"examples", "steps"}
    (entry,) = sent(site)
    assert entry["changes"] == [pytest.approx(float(change.norm()), rel=1e-3)]
    assert 0 < entry["budget"]["spent"] <= entry["budget"]["epsilon"] == 5.0


def test_the_same_task_twice_has_other_noise_and_the_same_probe(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    one, two = (update_in(ask(site, later(prior=networks(1)))) for _ in range(2))
    assert not torch.equal(one.weights, two.weights)
    assert torch.equal(one.probes, two.probes)
    spent = [entry["budget"]["spent"] for entry in sent(site)]
    assert 0 < spent[0] < spent[1] <= 5.0


def test_a_spent_budget_ends_the_answers_and_leaves_no_more_noise_behind(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    codes = []
    for _ in range(6):
        content = ask(site, later(prior=networks(1)))
        found = unpack_refusal(content)
        codes.append(found.code if found else "")
    assert codes == ["", ""] + 4 * ["privacy-budget-spent"]
    # What the probe of the second answer has saved goes into less noise.
    assert 4.95 < sent(site)[1]["budget"]["spent"] <= 5.0


def test_a_probe_is_paid_for_once_per_anchor(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    budget = Budget(
        config=PrivacyConfig(epsilon=5.0, delta=1e-3, answers=2), state=tmp_path / "state"
    )

    def probe(anchor):
        request = ProbeRequest(frame=frame(), anchor=anchor)
        content = ask(site, pack_probe_request(request), PROBE_ACTION)
        return unpack_probe_reply(content, TARGET.layout).probes, budget.spent()["spent"]

    (first, paid), (again, still) = probe(None), probe(None)
    assert torch.equal(first, again)
    assert 0 < paid == still
    other, more = probe(networks(5))
    assert not torch.equal(first, other)
    assert more > paid


def test_a_round_from_the_anchor_needs_no_choice_either(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    task = Task(
        frame=frame(), anchor=None, round=1, release="", recipe=Recipe(steps=3), candidates=()
    )
    update = update_in(ask(site, pack_task(task)))
    assert update.chosen == ("anchor",)
    assert len(update.weights) == 1


def test_without_the_priors_start_nothing_is_spent_or_sent(tmp_path):
    site = digits_site(tmp_path, more=PRIVATE)
    content = ask(site, later(nearest=networks(1)))
    assert refusal(content).code == "no-start-without-choice"
    assert not (tmp_path / "state/privacy.json").exists()


def test_the_budget_is_spent_before_the_answer_is_made(tmp_path):
    budget = Budget(config=PrivacyConfig(epsilon=1.0, answers=1), state=tmp_path)
    noise = budget.spend([(1.0, 10)])
    assert json.loads((tmp_path / "privacy.json").read_text()) == {
        "answers": 1,
        "spent": [{"noise_multiplier": noise, "sampling_rate": 1.0, "steps": 10}],
    }
    with pytest.raises(PolicyRefusal, match="privacy-budget-spent"):
        budget.spend([(1.0, 10)])
    (tmp_path / "privacy.json").write_text("{torn")
    with pytest.raises(ConfigError, match="damaged"):
        budget.spend([(1.0, 10)])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("epsilon = -1.0", "epsilon"),
        ("delta = 0.0", "delta"),
        ("answers = 0", "answers"),
        ("epsilon = 2.0\ndelta = 0.1", "would allow one example to be given away"),
    ],
)
def test_the_check_names_an_invalid_budget(tmp_path, setting, problem):
    site = digits_site(tmp_path, more=f"[privacy]\n{setting}\n")
    assert any(problem in text for text in check(site, connect=False).problems)


def test_the_check_accepts_a_budget(tmp_path):
    assert check(digits_site(tmp_path, more=PRIVATE), connect=False).problems == ()
