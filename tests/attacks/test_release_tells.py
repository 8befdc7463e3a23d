"""What the compact generator tells of the sites that it was fitted on."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from f2l_fed.codec.config import CodecConfig
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.generator.compact import compact
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from f2l_fed.targets.networks.mlp import mlp
from server.generator.network_service import NetworkService
from server.generator.release_records import release_records
from tests.support.conducted import after_rounds
from tests.support.marks import Marks
from tests.support.served import ENOUGH, OF_ALL, OF_HEADS, SETTINGS, TO_SITES
from tests.support.small import records, rng

SITES = 40


@pytest.fixture(scope="module")
def fitted():
    """A generator of half of some sites, what it was fitted on, and the networks of the others."""
    target = Target.of("wide", partial(mlp, (20,), 3, 8), (20,), 3)
    contexts, weights = records(target.layout.size, 2 * SITES)
    own = FittedRecords(contexts=contexts[:SITES], weights=weights[:SITES])
    fit = fit_generator(
        own.contexts[:, None],
        own.weights[:, None],
        target,
        OutputSymmetry.of(target, enabled=True),
        GeneratorConfig(codec=CodecConfig(common=64), flow=FlowConfig(steps=0)),
        rng(1),
        anchor=torch.zeros(target.layout.size),
    )
    return fit.generator, own, weights[SITES:]


def left_over(generator, networks):
    """(n,) the share of each network's distance from the mean that the latent space can't say."""
    common = generator.codec.common
    off = networks - common.mean
    # Without the rows' deviations, which have components of their own.
    symmetry = generator.codec.symmetry
    rows = off[:, symmetry.output]
    off[:, symmetry.output] = rows.mean(1, keepdim=True).expand_as(rows)
    left = off - (off @ common.basis.T) @ common.basis
    return left.square().sum(1) / off.square().sum(1)


def test_no_network_of_a_site_lies_in_what_the_file_spans(fitted):
    """As all do in the latent space of the release itself, which tells members without a doubt.

    Members are still nearer to it than others, by how much is measured by
    `tests.benchmarks.compact_release`.
    """
    full, own, others = fitted
    small = compact(full, own, sites=SITES, rank=32)
    assert float(left_over(full, own.weights).max()) < 1e-3
    assert float(left_over(full, others).min()) > 0.1
    assert float(left_over(small, own.weights).min()) > 0.1


@pytest.mark.parametrize("adapt", [OF_HEADS, OF_ALL], ids=["head", "all"])
def test_no_record_of_any_site_is_in_the_file(tmp_path, adapt):
    own = (*SETTINGS, *adapt, *TO_SITES, "release.precision=fp32")
    federation = after_rounds(tmp_path / "out", sites=ENOUGH, settings=own)
    file = NetworkService(federation.root).release_file()
    found = release_records(federation, federation.releases.read(file.release))
    anchor = federation.anchor(federation.releases.promoted())
    # What never moves from the anchor is the anchor's, which is in the file.
    start = anchor if federation.body is None else torch.zeros(found.weights.shape[1])
    noise = torch.randn(found.weights.shape, generator=rng(5))
    rows = {
        "contexts": torch.where(found.contexts != 0, found.contexts, noise).numpy(),
        "weights": torch.where(found.weights != start, found.weights, noise).numpy(),
    }
    content = file.path.read_bytes()
    assert Marks({}, rows).found(content) == set()
    # The same search finds what is there.
    assert Marks({}, {"anchor": anchor[None].numpy()}).found(content) == {"anchor"}
    names = {f"site {site}": site for site in federation.releases.read(file.release).sites}
    assert Marks(names, {}).found(content) == set()
