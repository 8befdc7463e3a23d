"""The name of a network's frozen part: its digest, which settings and messages hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """The frozen part of a network as those know it who do not have it.

    Args:
        digest: SHA-256 of its values and of all that it does before and after them.
        features: F, the numbers that it makes of an input.
        adapted: A, the numbers of the network that are adapted before these features; 0 where the
            head alone is.
    """

    digest: str
    features: int
    adapted: int = 0


def frozen_part(digest: str, features: int, adapted: int = 0) -> FrozenPart | None:
    """The frozen part that settings name; None where they name none."""
    return FrozenPart(digest, features, adapted) if digest else None
