"""Small divisions of data among sites."""

from __future__ import annotations

from f2l_fed.data import Partition, SiteData, SplitConfig

SMALL = SplitConfig(
    ways=3,
    shots=4,
    validation_fraction=0,
    validation_per_class=2,
    held_out_shots=2,
    test_per_class=3,
    minimum_examples=1,
)


def all_sites(part: Partition) -> list[SiteData]:
    """Training sites and held-out ones."""
    return [*part.sites, *(part.held_out["seen"] or ()), *(part.held_out["unseen"] or ())]
