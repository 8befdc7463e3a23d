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


def sample(index: int) -> str:
    """Kind of a network drawn from the generator.

    >>> sample(3)
    'sample-3'
    """
    return f"{_SAMPLE}{index}"


def is_sample(kind: str) -> bool:
    """True for the kinds of `sample`.

    >>> is_sample("sample-3"), is_sample("prior")
    (True, False)
    """
    return kind.startswith(_SAMPLE)
