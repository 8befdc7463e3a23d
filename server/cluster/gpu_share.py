"""The share of a GPU that tasks book: Ray hides GPUs from those that book none."""

from __future__ import annotations

import ray

from f2l_fed.config import RayConfig

GPU_SHARE = 0.25
"""Share of one that a task books: some tasks at a time fit on a GPU, and none need all of it."""


def gpu_share(config: RayConfig) -> float:
    """The share that a task of the connected cluster books, 0 without a GPU.

    Where one is asked for and the cluster has none, the task itself says so.
    """
    there = config.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    return GPU_SHARE if there else 0.0
