"""Settings of the prior."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.validation import positive, require


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorConfig:
    """Settings of the prior.

    Args:
        rate: Of the refinement by the updates that come back once the anchor stays: factor on the
            predicted update; 1 goes where the sites went, more goes on from there.
        gate: Where heads alone are generated, add less where a site's classes are like no known
            ones.
        families: Where whole networks are generated, the most families of networks that are told
            apart, each with a prior of its own; 1 for one prior in any case.
    """

    rate: float = 1.5
    gate: bool = True
    families: int = 8

    def __post_init__(self) -> None:
        require(self.rate > 0, self, "rate", "> 0")
        positive(self, "families")
