"""The gate: why a release may not reach sites."""

from __future__ import annotations

import torch

from f2l_fed.errors import F2LError, ReleaseError
from f2l_fed.generator import Generator
from f2l_fed.seeds import generator_for
from f2l_fed.verdict import verdict
from server.federation import Federation
from server.releases import Release, require_finite

_DRAWS = 8


def objections(federation: Federation, release: Release) -> tuple[str, ...]:
    """What speaks against a release, a sentence each; empty if sites may get it.

    What is judged is the file that sites would get, not what the retraining had in memory.

    Args:
        federation: The folder.
        release: A candidate.
    """
    reasons = list(verdict(release.figures, federation.config.gate).reasons)
    promoted = federation.releases.promoted()
    now = promoted.id if promoted is not None else ""
    if release.parent != now:
        reasons.append(
            f"it was made from release {release.parent or 'none'}, but sites get {now or 'none'}."
        )
    try:
        generator = federation.releases.generator(release.id)
    except F2LError as error:
        return (*reasons, str(error))
    if damage := unsound(generator):
        reasons.append(damage)
    return tuple(reasons)


def unsound(generator: Generator) -> str:
    """Why no network of a generator can be trusted, as a sentence, or "" if that is not so."""
    try:
        require_finite(generator, where="")
    except ReleaseError as error:
        return str(error)
    anchored = generator.prior.anchor
    around = generator.mean.expand(_DRAWS, -1)
    with torch.no_grad():
        expected = generator.expect(torch.zeros(1, len(anchored)))
        drawn = generator.sample(around, generator_for("gate", "draws"))
    if not bool(expected.isfinite().all() and drawn.isfinite().all()):
        return "the generator makes networks that are not finite."
    return ""
