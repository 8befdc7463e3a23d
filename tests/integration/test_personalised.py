"""The own networks of training sites with shared labels, as a simulation tells of them."""

from __future__ import annotations

import threading

import pytest
import torch

from clients.site.model_store import load_model
from f2l_fed.evaluation.baselines.personalised.accuracy import personalised_accuracy
from server.cluster.personalised import evaluate_personalised, own_examples_of, personalised_work
from tests.support.inline import run_inline
from tests.support.small_federation import FEW, small_federation


def test_the_federation_s_row_is_what_its_sites_networks_reach_weighted_by_test_examples(tmp_path):
    few = (*FEW, "probe.episodes=1")
    federation, divided = small_federation(tmp_path, sites=4, settings=few, scenario="dirichlet")
    run_inline(federation, 2)
    part = evaluate_personalised(federation, divided, 2, baselines=False, stop=threading.Event())
    assert part["rounds"] == [1, 2]
    assert list(part["methods"]) == ["this_federation"]
    row, tests = part["methods"]["this_federation"], own_examples_of(divided)
    models = [load_model(tmp_path / "sites" / site.name / "state") for site in divided.sites]
    networks = torch.stack([model.weights for model in models])
    found = personalised_accuracy(federation.network, networks, tests)
    assert len(set(found.examples)) > 1
    assert row["weighted"][1] == pytest.approx(found.weighted, abs=1e-3)
    assert row["plain"][1] == pytest.approx(found.plain, abs=1e-3)
    assert row["weighted"][1] != pytest.approx(row["plain"][1], abs=1e-3)


def test_baselines_get_the_sites_and_the_start_of_the_federation(tmp_path):
    federation, divided = small_federation(tmp_path, sites=4, scenario="dirichlet")
    work = personalised_work(federation.config, divided, 8)
    assert [site.name for site in work.sites] == [site.name for site in divided.sites]
    assert all(
        torch.equal(one.x, torch.from_numpy(other.x_train))
        for one, other in zip(work.sites, divided.sites, strict=True)
    )
    assert torch.equal(work.start, federation.anchor(None))
    assert work.measured == (1, 3, 5, 8)
