"""The baselines for shared labels on a federation's own sites."""

from __future__ import annotations

import torch

from server.cluster.personalised import own_examples_of, personalised_work
from tests.support.small_federation import small_federation


def test_baselines_get_the_sites_and_the_start_of_the_federation(tmp_path):
    federation, divided = small_federation(tmp_path, sites=4, scenario="dirichlet")
    work = personalised_work(federation.config, divided, 8)
    assert [site.name for site in work.sites] == [site.name for site in divided.sites]
    assert all(
        torch.equal(one.x, torch.from_numpy(other.x_train))
        for one, other in zip(work.sites, divided.sites, strict=True)
    )
    assert torch.equal(work.start, federation.anchor(None))
    for (x, y), site in zip(own_examples_of(divided), divided.sites, strict=True):
        assert torch.equal(x, torch.from_numpy(site.x_test))
        assert torch.equal(y, torch.from_numpy(site.y_test))
    assert work.measured == (1, 3, 5, 8)
