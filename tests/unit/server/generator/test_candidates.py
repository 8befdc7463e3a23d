"""Candidates of a chunk of sites: the same as one by one, on every device, and from other sites."""

from __future__ import annotations

import pytest
import torch

from server.generator.candidates import CandidateFactory
from server.generator.release_records import release_records
from tests.support.conducted import after_rounds
from tests.support.devices import on_devices
from tests.support.small import rng


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates") / "out"
    settings = ("candidates.nearest=true", "candidates.training_samples=2")
    return after_rounds(folder, sites=4, settings=settings)


@pytest.fixture
def asked(federation):
    """Two known sites and two new ones, with contexts near those of known ones."""
    release = federation.releases.read("00001")
    records = release_records(federation, release)
    size = records.contexts.shape[1]
    known = records.contexts.view(len(release.sites), -1, size)
    near = known + 1e-3 * torch.randn(known.shape, generator=rng(1))
    return [*release.sites[:2], "new-a", "new-b"], near, records


@on_devices
def test_a_chunk_is_what_its_sites_are_one_by_one(federation, asked, device):
    sites, probes, _ = asked
    factory = CandidateFactory.open(federation, "00001", device)
    alone = CandidateFactory.open(federation, "00001")
    together = dict(factory.candidates(sites, probes))
    for index, site in enumerate(sites):
        ((_, wanted),) = alone.candidates([site], probes[index : index + 1])
        assert len(together[site]) == len(wanted) == probes.shape[1]
        for mine, known in zip(together[site], wanted, strict=True):
            assert list(mine) == ["prior", "global_mean", "nearest", "sample-0", "sample-1"]
            for kind, weights in mine.items():
                assert weights.device == torch.device("cpu")
                torch.testing.assert_close(weights, known[kind], rtol=1e-3, atol=1e-4)


def test_the_nearest_record_is_another_sites(federation, asked):
    sites, probes, records = asked
    episodes = probes.shape[1]
    made = dict(CandidateFactory.open(federation, "00001").candidates(sites, probes))
    for index, site in enumerate(sites):
        for episode, candidates in enumerate(made[site]):
            distances = (records.contexts - probes[index, episode]).norm(dim=1)
            if site.startswith("new"):
                assert int(distances.argmin()) == index * episodes + episode
            else:
                distances[index * episodes : (index + 1) * episodes] = torch.inf
            assert torch.equal(candidates["nearest"], records.weights[distances.argmin()])


@on_devices
def test_the_service_offers_the_same_kinds_on_every_device(federation, asked, device):
    _, probes, _ = asked
    made, wanted = (
        CandidateFactory.open(federation, "00001", place).served("new-a", probes[2, 0])
        for place in (device, torch.device("cpu"))
    )
    assert made.keys() == wanted.keys() > {"prior", "global_mean", "nearest", "sample-0"}
    for kind, weights in made.items():
        torch.testing.assert_close(weights, wanted[kind], rtol=1e-3, atol=1e-4)
