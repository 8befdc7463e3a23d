"""The registry of scenarios; another one takes a file with a `Scenario` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.data.scenarios.site_plan import Scenario

SCENARIOS: Mapping[str, Scenario] = LazyRegistry(
    {
        "few-shot": "f2l_fed.data.scenarios.few_shot:plan_few_shot",
        "dirichlet": "f2l_fed.data.scenarios.dirichlet:plan_dirichlet",
        "camera": "f2l_fed.data.scenarios.camera:plan_camera",
        "changing": "f2l_fed.data.scenarios.changing:plan_changing",
        "changing-few-shot": "f2l_fed.data.scenarios.changing:plan_changing_few_shot",
        "natural": "f2l_fed.data.scenarios.natural:plan_natural",
    }
)
