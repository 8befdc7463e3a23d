"""The share of a GPU that tasks book: Ray hides GPUs from those that book none."""

from __future__ import annotations

from collections.abc import Mapping

GPU_SHARE = 0.25
"""Share of one that a task books: some tasks at a time fit on a GPU, and none need all of it."""


def gpu_share(device: str, resources: Mapping[str, float]) -> float:
    """The share that a task books; 0 without a GPU, and a task that needs one then says so itself.

    Args:
        device: Name of the device in the settings.
        resources: Of the cluster, as Ray tells them.

    >>> gpu_share("auto", {"CPU": 8, "GPU": 1}), gpu_share("cpu", {"CPU": 8, "GPU": 1})
    (0.25, 0.0)
    >>> gpu_share("auto", {"CPU": 8}), gpu_share("cuda", {"CPU": 8})
    (0.0, 0.0)
    """
    return GPU_SHARE if device != "cpu" and resources.get("GPU", 0) > 0 else 0.0
