"""The registry of couplings; another one takes a file with a `Coupling` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.flow.couplings.coupling import Coupling

COUPLINGS: Mapping[str, Coupling] = LazyRegistry(
    {
        "conditional-ot": "f2l_fed.flow.couplings.conditional_ot:conditional_ot",
        "independent": "f2l_fed.flow.couplings.independent:independent",
        "ot": "f2l_fed.flow.couplings.ot:ot",
    }
)
