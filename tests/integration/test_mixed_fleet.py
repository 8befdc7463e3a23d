"""A release on a zoo with networks of two basins: gate, candidates and explanation know of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.config import load_config
from f2l_fed.generator.serialization import load_generator
from f2l_fed.local_training.candidate_kinds import group_of
from f2l_fed.zoo import NewRecord
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.generator.explanation import explain_site
from server.generator.gate import objections
from server.generator.retrain import retrain
from server.generator.training_set import expectation
from tests.support.small import rng
from tests.support.small_federation import ANY_RELEASE, SETTINGS

SITES = 24


@pytest.mark.parametrize("memory_mb", [1000, 0], ids=["in memory", "on a disk"])
def test_a_zoo_of_two_basins_makes_a_release_of_two_families(tmp_path, memory_mb):
    settings = [
        f"ray.memory_mb={memory_mb}",
        *SETTINGS,
        *ANY_RELEASE,
        "probe.anchors=1",
        "target.input_shape=[1, 8, 8]",
        "target.classes=5",
    ]
    federation = Federation.create(tmp_path / "out", load_config(None, settings))
    draws, target = rng(3), federation.target
    basins = torch.stack([target.initialise(rng(seed)) for seed in (1, 2)])
    names = [f"site-{index:02d}" for index in range(SITES)]
    for index, name in enumerate(names):
        task = 0.05 * torch.randn(target.layout.size, generator=draws)
        federation.zoo.append(
            [
                NewRecord(
                    key=f"1/{name}/{episode}",
                    site=name,
                    round=1,
                    parent="",
                    weights=(basins[index % 2] + task).numpy(),
                    context=task.numpy(),
                    metrics={},
                )
                for episode in range(2)
            ]
        )
    release = retrain(federation.root, "00001", federation.zoo.snapshot().commit)
    assert release.figures["families"] == 2
    assert release.model.startswith("2 families of networks, each with its own: Prior and ")
    assert objections(federation, release) == ()
    federation.releases.promote("00001")

    generator = load_generator(federation.releases.path / "00001" / "generator.safetensors")
    families = generator.family_of(torch.stack([basins[index % 2] for index in range(SITES)]))
    assert sorted(families.tolist()) == [0] * 12 + [1] * 12

    factory = CandidateFactory.open(federation, "00001")
    probes = torch.zeros(SITES, 2, target.layout.size)
    for (name, made), family in zip(factory.candidates(names, probes), families, strict=True):
        for offered in made:
            weights = torch.stack(list(offered.values()))
            assert (generator.family_of(weights) == family).all(), name
    served = factory.served("someone-new", probes[0, 0])
    groups = {group_of(kind) for kind in served if kind.startswith("sample-")}
    assert groups == {"sample", "sample-1"}

    assert federation.releases.read("00001") == replace(release, state="promoted")
    assert [family == release.families[1] for family in release.families] == [False, True] * 12
    told = explain_site(federation, release, names[3])
    assert told.learned_in == ("00001",)
    assert {share.site for share in told.origin.shares} == set(names[1::2])
    # A release of a version that did not keep the families is explained by the nearest means.
    assert explain_site(federation, replace(release, families=()), names[3]) == told
    # What the release was fitted by counts, wherever the first of a site's networks lies.
    families = (*release.families[:2], release.families[1], *release.families[3:])
    told = explain_site(federation, replace(release, families=families), names[3])
    assert {share.site for share in told.origin.shares} == {names[2], *names[1::2]}
    # Nothing is refined from several families.
    promoted = federation.releases.promoted()
    assert promoted is not None
    assert expectation(federation, promoted, names[:1], probes[:1]) is None
