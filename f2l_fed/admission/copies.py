"""Checks against networks and updates that are remembered: copies, and sites in league.

Only sketches are compared, so thousands of networks cost a few megabytes and a millisecond.
Distances count in units of the network's own update: an honest network is as far from any other
site's as training went, a copy with a little noise is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from f2l_fed.admission.case import Case
from f2l_fed.admission.verdict import Finding


def copies(case: Case) -> Iterator[Finding]:
    """A network of another site, or an earlier one of the same site, sent as one's own."""
    one, memory = case.measures, case.memory
    if not memory.owners:
        return
    away = torch.cdist(one.signatures.double(), memory.signatures.double())
    shares = away / one.lengths[:, None].clamp(min=1e-12)
    mine = one.origin
    foreign = torch.tensor([owner.site != mine.site for owner in memory.owners])
    # From one start on the same data, honest training ends at the same network again.
    earlier = torch.tensor(
        [
            owner.site == mine.site and owner.round < mine.round and owner.parent != mine.parent
            for owner in memory.owners
        ]
    )
    for code, which in (("copy", foreign), ("stale", earlier)):
        if bool(which.any()):
            share = float(shares[:, which].min())
            if share < case.config.copy:
                figures = {"share": share, "least": case.config.copy}
                yield Finding(code=code, action="quarantine", figures=figures)


def alike(case: Case) -> Iterator[Finding]:
    """An update in the same direction as another site's of the same round."""
    one, memory = case.measures, case.memory
    which = torch.tensor(
        [
            source.site != one.origin.site and source[1:] == one.origin[1:]
            for source in memory.sources
        ],
        dtype=torch.bool,
    )
    if not bool(which.any()):
        return
    cosine = float((one.directions @ memory.directions[which].T).max())
    if cosine > case.config.alike:
        figures = {"cosine": cosine, "most": case.config.alike}
        yield Finding(code="alike", action="quarantine", figures=figures)
