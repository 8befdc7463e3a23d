"""The source around the prior's prediction."""

from __future__ import annotations

from f2l_fed.flow.sources.source import DiagonalNormal, SourceDistribution


def prior(expected: DiagonalNormal, _: DiagonalNormal | None) -> DiagonalNormal:
    """N(p(c), σ²): around the expected latent, as wide as the prior's own held-out error."""
    return expected


PRIOR = SourceDistribution(prior, follows_context=True)
