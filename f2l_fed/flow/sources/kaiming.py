"""The source of random initialisations."""

from __future__ import annotations

from f2l_fed.errors import ConfigError
from f2l_fed.flow.sources.source import DiagonalNormal, SourceDistribution


def kaiming(_: DiagonalNormal, initial: DiagonalNormal | None) -> DiagonalNormal:
    """Random initialisations, the same for every context; not normal, but near this one.

    Raises:
        ConfigError: If there are no initialisations.
    """
    if initial is None:
        raise ConfigError(
            "the source needs random initialisations, and none are given",
            where="source",
            got="'kaiming'",
            remedy="Choose another source, or pass what draws and encodes them.",
        )
    return initial


KAIMING = SourceDistribution(kaiming, initialises=True)
