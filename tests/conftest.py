"""One torch thread in every test, and the order in which workers take files up."""

import os

import pytest

# Several are slower where cores are few or busy.
os.environ["OMP_NUM_THREADS"] = "1"

_HEAVY = ("deployment", "ray", "slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts files that start the most first: they take longest, and others fill in while they wait.

    Only for several workers; alone, quick tests stay where they are.
    """
    if not hasattr(config, "workerinput"):
        return
    weights: dict[object, int] = {}
    for item in items:
        marks = sum(item.get_closest_marker(name) is not None for name in _HEAVY)
        weights[item.path] = max(weights.get(item.path, 0), marks)
    items.sort(key=lambda item: -weights[item.path])
