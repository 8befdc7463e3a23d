"""The connection to a Ray cluster, or to a Ray inside this process."""

from __future__ import annotations

import logging
import os
from typing import Any
from uuid import uuid4

import ray

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError
from server.processes import end_strays
from server.rounds.state import Interrupted

_STARTS = 6
_MARK = "F2L_RAY_START"
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# Simulated sites count as busy processes, and above the number of CPUs Ray ends idle ones after a
# second: every task would then start by importing torch.
_SYSTEM = {"idle_worker_killing_time_threshold_ms": 3_600_000}


def connect(config: RayConfig) -> None:
    """Joins the cluster at the configured address, or starts one inside this process.

    Raises:
        Interrupted: If no cluster can be joined or started.
        ConfigError: If no task can ever run on the one inside this process.
    """
    if ray.is_initialized():
        return
    try:
        if config.address:
            ray.init(address=config.address, **_QUIET)
        else:
            _start(config)
    except Exception as error:
        got = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if not config.address:
            remedy = "Go on with the round."
            raise Interrupted("Ray does not start", got=got, remedy=remedy) from error
        raise Interrupted(
            "no Ray cluster can be joined",
            where=config.address,
            got=got,
            remedy="Start it, with one of its nodes on this machine, then go on with the round.",
        ) from error
    # A retraining waits for its workers.
    needed = config.task_cpus * (1 + config.train_workers)
    if not config.address and needed > (there := ray.cluster_resources()["CPU"]):
        # Ray would wait for such a machine for ever. A cluster may still grow.
        raise ConfigError(
            "a retraining needs more CPUs than there are",
            where="ray.task_cpus",
            expected=f"at most {there:g} for it and its workers",
            got=f"{needed:g}",
        )


def _start(config: RayConfig) -> None:
    """Starts a Ray inside this process; tries again if its processes do not come up in time.

    Ray gives its own processes 30 seconds. On a machine that is busy with starting all of a
    federation that may be too little; Ray then leaves them behind and raises a bare exception.
    """
    for left in reversed(range(_STARTS)):
        mark = uuid4().hex
        os.environ[_MARK] = mark
        try:
            ray.init(
                address="local",
                num_cpus=config.cpus or None,
                include_dashboard=False,
                _system_config=_SYSTEM,
                **_QUIET,
            )
            return
        except Exception as error:
            end_strays(f"{_MARK}={mark}")
            if type(error) is not Exception or not left:
                raise
        finally:
            del os.environ[_MARK]
