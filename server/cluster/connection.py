"""The connection to a Ray cluster, or to a Ray inside this process; both ask for a token.

A Ray inside this process gets a token of its own at each start and listens on loopback only. A
cluster is joined with the token that the settings or the environment name, and only if it refuses
calls without one.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray._private import ray_constants

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError
from server.cluster.authentication import (
    HOW_TO_PROTECT,
    TOKEN,
    TOKEN_PATH,
    answer_of,
    cluster_token,
    reload,
    token_mode,
)
from server.cluster.session_folder import RAY_FOLDER, TOKEN_FILE, session_folder
from server.processes import end_strays
from server.rounds.state import Interrupted

_STARTS = 6
_MARK = "F2L_RAY_START"
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
_SYSTEM = {
    # Simulated sites count as busy processes, and above the number of CPUs Ray ends idle ones after
    # a second: every task would then start by importing torch.
    "idle_worker_killing_time_threshold_ms": 3_600_000,
    # Nobody reads the figures that each process would offer on a port without a token.
    "enable_metrics_collection": False,
}

_connection = ExitStack()
"""The steps that end the connection of this process."""

atexit.register(_connection.close)


def connect(config: RayConfig) -> None:
    """Joins the cluster at the configured address, or starts one inside this process.

    Raises:
        Interrupted: If no cluster can be joined or started.
        ConfigError: If no task can ever run on the one inside this process, no token is known for a
            cluster or its job server, or the cluster takes commands without one.
    """
    if ray.is_initialized():
        return
    # Somebody else may have shut Ray down.
    disconnect()
    if config.jobs:
        cluster_token(config)
    try:
        if config.address:
            _join(config)
        else:
            _start(config)
    except BaseException:
        disconnect()
        raise


def disconnect() -> None:
    """Ends the connection, and a Ray inside this process with all that it has left on disk."""
    _connection.close()


def _join(config: RayConfig) -> None:
    token = cluster_token(config)
    if config.address != "auto":
        _require_protected(config.address, token)
    try:
        with token_mode(**{TOKEN: token}):
            _connection.callback(_shut_down)
            ray.init(address=config.address, **_QUIET)
    except Exception as error:
        raise Interrupted(
            "no Ray cluster can be joined",
            where=config.address,
            got=_first_line(error),
            remedy="Start it, with one of its nodes on this machine, then go on with the round.",
        ) from error
    if config.address == "auto":
        _require_protected(ray.get_runtime_context().gcs_address, token)


def _require_protected(address: str, token: str) -> None:
    if answer_of(address) == "given":
        raise ConfigError(
            "the Ray cluster takes commands from anyone who reaches it",
            where=address,
            expected="one that asks for a token",
            remedy=HOW_TO_PROTECT,
        )
    if answer_of(address, token) == "refused":
        raise ConfigError(
            "the Ray cluster refuses the token",
            where=address,
            remedy="Name the file with its token in ray.token_file or RAY_AUTH_TOKEN_PATH.",
        )


def _start(config: RayConfig) -> None:
    try:
        folder = _connection.enter_context(session_folder())
        _connection.callback(_shut_down)
        with token_mode(**{TOKEN_PATH: str(folder / TOKEN_FILE)}), _on_loopback():
            _start_patiently(config, folder)
    except ConfigError:
        raise
    except Exception as error:
        remedy = "Go on with the round."
        got = _first_line(error)
        raise Interrupted("Ray does not start", got=got, remedy=remedy) from error
    # A retraining waits for its workers.
    needed = config.task_cpus * (1 + config.train_workers)
    if needed > (there := ray.cluster_resources()["CPU"]):
        # Ray would wait for such a machine for ever. A cluster may still grow.
        raise ConfigError(
            "a retraining needs more CPUs than there are",
            where="ray.task_cpus",
            expected=f"at most {there:g} for it and its workers",
            got=f"{needed:g}",
        )


def _start_patiently(config: RayConfig, folder: Path) -> None:
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
                _temp_dir=str(folder / RAY_FOLDER),
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


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes a Ray that is started within the block take 127.0.0.1 as its node's address.

    All its processes then listen there only. Ray does so by itself on systems other than Linux,
    and replaces a loopback address that it is given.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _shut_down() -> None:
    ray.shutdown()
    reload()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
