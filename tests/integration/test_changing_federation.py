"""Federations whose sites join, leave, get further classes or another camera between rounds."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from clients.client_app import SITES_ROOT, app
from f2l_fed.errors import UsageError
from f2l_fed.local_training.adapted_network import site_context
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.targets.head_rows import padded, with_classes
from server.generator.candidates import CandidateFactory
from server.rounds.messaging import Messenger
from server.simulation.changes import changing_rounds, node_names, with_numbers
from server.simulation.training_sites import training_accuracy
from tests.support.inline import conductor
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import FEW, events, small_federation

ROUNDS, SITES = 9, 10
SETTINGS = (*FEW, "target.adapt=head", "split.shots=20", "episodes.first=10", "episodes.steps=5")


@pytest.fixture(scope="module", params=["changing", "changing-few-shot"])
def conducted(tmp_path_factory, request):
    """A federation after nine rounds, its data and its rounds."""
    out = tmp_path_factory.mktemp("changing") / "out"
    federation, divided = small_federation(
        out, sites=SITES, settings=SETTINGS, scenario=request.param
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SITES_ROOT, str(out / "sites"))
        # In another order than the sites.
        configs = {100 - number: {"partition-id": number} for number in range(SITES)}
        grid = LoopbackGrid(with_numbers(app), configs)
        config = federation.config.round
        messenger = Messenger(grid=grid, config=config, stop=threading.Event())
        nodes = node_names(grid, divided, messenger)
        assert nodes == {100 - number: site.name for number, site in enumerate(divided.sites)}
        states = changing_rounds(
            federation,
            divided,
            ROUNDS,
            nodes,
            federation.events(),
            lambda names: conductor(federation, [], grid=grid, names=names).run(1, SITES),
        )
    return federation, divided, states


def test_a_round_asks_the_sites_that_are_there_and_no_others(conducted):
    federation, divided, states = conducted
    assert [state.step for state in states] == ["done"] * ROUNDS
    assert all(state.promoted for state in states)
    for over, state in enumerate(states):
        assert set(state.accepted) == divided.after(over).keys()
        assert state.sites == len(divided.after(over))
    told = [
        (line["round"], line["site"], line["what"])
        for line in events(federation.root, "site.changed")
    ]
    assert told == [(change.after, change.site.name, change.what) for change in divided.changes]


def test_a_site_goes_on_with_the_examples_that_it_has_by_then(conducted):
    federation, divided, _ = conducted
    number_of = {site.name: number for number, site in enumerate(divided.sites)}
    for site in divided.after(ROUNDS).values():
        folder = federation.root / "sites" / f"site-{number_of[site.name]:03d}"
        with np.load(folder / "train.npz") as there:
            np.testing.assert_array_equal(there["y"], site.own.y)
            np.testing.assert_array_equal(there["x"], site.own.x)
    told = {
        record.site: record.metrics["examples"]
        for record in federation.zoo.snapshot().records(round=ROUNDS)
    }
    assert told == {site.name: len(site.y_train) for site in divided.after(ROUNDS).values()}


def test_sites_that_never_change_are_told_apart_and_lose_nothing(conducted):
    federation, divided, states = conducted
    rows = training_accuracy(federation, divided, states)
    assert [row["round"] for row in rows][-1] == ROUNDS
    by_round = {row["round"]: row for row in rows}
    assert (by_round[1]["joined"], by_round[1]["changed"]) == (None, None)
    assert by_round[2]["joined"] is not None
    assert by_round[3]["changed"] is None
    assert by_round[4]["changed"] is not None
    never = [by_round[number]["never"] for number in sorted(by_round)]
    assert never[-1] > max(never) - 0.05
    assert never[-1] > never[0]


def test_a_site_with_another_camera_gets_a_head_for_what_it_sees_now(conducted):
    federation, divided, _ = conducted
    if federation.body is None:
        pytest.skip("sites share a network")
    change = next(change for change in divided.changes if change.what == "camera")
    factory = CandidateFactory.open(federation, f"{change.after:05d}")
    weights = federation.anchor(federation.releases.read(factory.id))
    body = with_classes(federation.body, len(change.site.classes))
    tests = torch.from_numpy(change.site.x_test), torch.from_numpy(change.site.y_test)
    found = {}
    for when, site in {"before": divided.sites, "now": [change.site]}.items():
        (own,) = (one for one in site if one.name == change.site.name)
        x, y = torch.from_numpy(own.x_train), torch.from_numpy(own.y_train)
        context = site_context(body, weights, x, y, federation.config.head)
        whole = padded(context[None], federation.target.layout)[0]
        head = factory.served(own.name, whole)[PRIOR]
        found[when] = loss_and_accuracy(body.network, body.join(weights, head), *tests)[1]
    assert found["now"] > found["before"] + 0.2


def test_baselines_of_a_federation_that_changes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="not measured in a federation that changes"):
        small_federation(tmp_path / "out", sites=SITES, scenario="changing", baselines=True)
