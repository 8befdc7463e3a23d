"""The random streams of a site's work: the same in rounds, in requests outside of them, in tables.

A held-out site is measured with the streams of a request outside of rounds, and so its figures are
what a site of the same name and examples gets.
"""

from __future__ import annotations

import torch

from f2l_fed.core.random_streams import generator_for

NO_ROUND = 0
"""Number of the round of a task outside of rounds."""


def support_stream(lineage: str, site: str, number: int = 0) -> torch.Generator:
    """The source of the few examples of a site's context; the first is that of requests."""
    return generator_for(lineage, site, "probe", number)


def steps_stream(lineage: str, round: int, site: str, episode: int = 0) -> torch.Generator:
    """The source of the batches of a site's own steps in a round; see `NO_ROUND`."""
    return generator_for(lineage, round, site, "finetune", episode)


def draws_stream(lineage: str, site: str) -> torch.Generator:
    """The source of the candidates that are drawn for a site outside of rounds."""
    return generator_for(lineage, site, "candidates")
