"""The registry of sources; another one takes a file with a `SourceDistribution` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.flow.sources.source import SourceDistribution

SOURCES: Mapping[str, SourceDistribution] = LazyRegistry(
    {
        "gaussian": "f2l_fed.flow.sources.gaussian:GAUSSIAN",
        "kaiming": "f2l_fed.flow.sources.kaiming:KAIMING",
        "prior": "f2l_fed.flow.sources.prior:PRIOR",
    }
)
