"""The process group of training workers that all run on this machine.

By itself torch lets workers meet at a port that is open on all addresses and asks nobody who they
are. Here they meet in a file, and speak to each other on loopback.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import ray
from ray.train.torch.config import TorchConfig, _TorchBackend
from torch import distributed


@dataclass
class LoopbackConfig(TorchConfig):
    """The configuration of Ray Train for workers on this machine.

    Args:
        folder: A folder that only this account may write to.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The class that sets the group up."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        # A group that is started again, after a lost worker, needs another file.
        place = f"file://{backend_config.folder}/{uuid4().hex}.group"
        count, timeout_s = len(worker_group), backend_config.timeout_s
        ray.get(
            [
                worker_group.execute_single_async(rank, _meet, place, rank, count, timeout_s)
                for rank in range(count)
            ]
        )


def _meet(place: str, rank: int, count: int, timeout_s: float) -> None:
    (loopback, *_) = (name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = loopback
    distributed.init_process_group(
        "gloo",
        init_method=place,
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=timeout_s),
    )
