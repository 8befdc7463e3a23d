"""The compact generator: what sites may have of a release, small and without any single record.

Maps and latent space keep their principal directions, and never more than a quarter as many as
there are sites, or rows of sites' heads: with as many directions as sites, every site's network
would lie in what they span, and whoever has a network could tell whether it is one of them.
Centroids of the likeness gate are of rows of several sites each.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.codec.codec import Codec
from f2l_fed.codec.pca import PcaCodec, PrincipalComponents
from f2l_fed.errors import ReleaseError
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.generator.generator import Generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.head_rows import row_is_present

FEWEST_SITES = 8
"""Sites below which a release is not given away: its means say too much of each of them."""

PER_DIRECTION = 4
"""Sites, or rows of sites' heads, for each direction of a map or of the latent space."""

SITES_PER_CENTROID = 3
"""Fewest sites whose rows are in a centroid of the likeness gate."""


def rank_of(members: int, most: int) -> int:
    """The rank of what was fitted on so many sites, or rows of their heads.

    >>> rank_of(399, 32), rank_of(40, 32)
    (32, 10)
    """
    return max(1, min(most, members // PER_DIRECTION))


def compact(
    generator: Generator, records: FittedRecords, *, sites: int, rank: int, erased: bool = False
) -> Generator:
    """The compact form of a generator, which makes candidates as the generator itself does.

    Args:
        generator: Of a single family.
        records: Of n sites in order, E of each: those that it was fitted on or, where whole
            networks are generated, some of them.
        sites: The number of sites that it was fitted on.
        rank: Largest rank; see `rank_of`.
        erased: Whether it was fitted on further sites, of which nothing may be left in centroids.

    Raises:
        ReleaseError: If the generator has several families, or a codec other than "pca".
    """
    if generator.fleet is not None:
        raise ReleaseError("a release of several families has no compact form")
    prior, symmetry = generator.prior, generator.prior.symmetry
    contexts, weights = (symmetry.split(w) for w in (records.contexts, records.weights))
    gate, of_rows = prior.gate, rank_of(sites * max(1, symmetry.classes), rank)
    if symmetry.rows_alone:
        # Sites have fewer rows than the most that any may have.
        rows = weights.rows.unflatten(0, (sites, -1))
        gate = gate.with_shared_centroids(rows, SITES_PER_CENTROID, anew=erased)
        of_rows = rank_of(int(row_is_present(rows[:, 0]).sum()), rank)
    rank = rank_of(sites, rank)
    prior = replace(
        prior,
        common=prior.common.truncated(contexts.common, rank),
        rows=prior.rows.truncated(contexts.rows.flatten(0, 1), of_rows),
        gate=gate,
    )
    if not draws(generator):
        return without_draws(replace(generator, prior=prior, bodies=None))
    codec, field = _truncated(generator.codec, rank, of_rows), generator.velocity
    if not generator.config.sample.evaluations:
        field = unused_field(codec, generator.spread, generator.config.flow.source)
    return replace(generator, prior=prior, codec=codec, velocity=field, bodies=None)


def draws(generator: Generator) -> bool:
    """Whether networks are drawn: neither heads alone nor networks around a shared one."""
    prior = generator.prior
    return not prior.symmetry.rows_alone and prior.around is None


def without_draws(generator: Generator) -> Generator:
    """A generator that can only expect: its latent space has no direction."""
    codec = empty_codec(generator.prior.symmetry)
    spread = torch.ones(codec.shape.size)
    field = unused_field(codec, spread, generator.config.flow.source)
    return replace(generator, codec=codec, spread=spread, velocity=field)


def empty_codec(symmetry: OutputSymmetry) -> Codec:
    """A latent space of one coordinate, which moves nothing."""

    def nothing(size: int, coordinates: int) -> PrincipalComponents:
        return PrincipalComponents(
            mean=torch.zeros(size), basis=torch.zeros(0, size), scale=torch.ones(coordinates)
        )

    rows = symmetry.output.shape[1]
    return PcaCodec(symmetry=symmetry, common=nothing(symmetry.size, 1), rows=nothing(rows, 0))


def unused_field(codec: Codec, spread: Tensor, source: str) -> VelocityField:
    """The smallest field, for a generator whose draws take no evaluation."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        field = VelocityField(codec.shape, spread, source, width=2, depth=1)
    return field.requires_grad_(False)


def _truncated(codec: Codec, rank: int, of_rows: int) -> Codec:
    if not isinstance(codec, PcaCodec):
        raise ReleaseError(
            "a release with this codec has no compact form", expected="pca", got=codec.kind
        )
    return replace(codec, common=codec.common.truncated(rank), rows=codec.rows.truncated(of_rows))
