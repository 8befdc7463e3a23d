"""The name of a network's frozen part: its digest, which settings and messages hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """The frozen part of a network as those know it who do not have it.

    Args:
        digest: SHA-256 of its values and of all that it does before and after them.
        features: F, the numbers that it makes of an input.
    """

    digest: str
    features: int


def frozen_part(digest: str, features: int) -> FrozenPart | None:
    """The frozen part that two settings name; None where they name none."""
    return FrozenPart(digest, features) if digest else None
