"""Candidate kinds: the names of the starts that a site chooses from, as they travel on the wire."""

from __future__ import annotations

ANCHOR = "anchor"
"""The lineage's anchor: the only start in a round without a release."""

PRIOR = "prior"
"""The prior's prediction for the site."""

GLOBAL_MEAN = "global_mean"
"""The mean of all networks that the release was fitted on."""

NEAREST = "nearest"
"""The stored network with the nearest context: another site's, so only where it is asked for."""

BLEND = "blend"
"""The mean of the best samples, which the site makes itself."""

_SAMPLE = "sample-"


def sample(index: int, family: int = 0) -> str:
    """Kind of a network drawn from the generator, and in a mixed fleet from which family.

    >>> sample(3), sample(3, 1)
    ('sample-3', 'sample-1-3')
    """
    return f"{_SAMPLE}{family}-{index}" if family else f"{_SAMPLE}{index}"


def group_of(kind: str) -> str:
    """The part that the kinds of one family's draws share; only these have a mean worth having.

    >>> group_of("sample-3"), group_of("sample-1-3")
    ('sample', 'sample-1')
    """
    return kind.rpartition("-")[0]


def is_sample(kind: str) -> bool:
    """True for the kinds of `sample`.

    >>> is_sample("sample-3"), is_sample("prior")
    (True, False)
    """
    return kind.startswith(_SAMPLE)
