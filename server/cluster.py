"""The heavy work on Ray: retraining, its judgement, and candidates for many sites at once.

Tasks get paths and names, not arrays: they read zoo and releases themselves, so the object store
never holds anything that exists nowhere else. Ray repeats a task whose process was lost; a cluster
that is lost as a whole interrupts the round, which goes on when it is started again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from torch import Tensor

from f2l_fed.candidates import Offer
from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError, F2LError, RoundError
from server.children import end_strays
from server.federation import Federation
from server.gate import objections
from server.jobs import retrain_as_job
from server.offers import Workshop
from server.releases import Release
from server.retrain import retrain
from server.rounds import Interrupted

_SITES_PER_TASK = 16
_RETRIES = 3
_STARTS = 3
_MARK = "F2L_RAY_START"
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# Simulated sites count as busy processes, and above the number of CPUs Ray ends idle ones after a
# second: every task of ours would start by importing torch.
_SYSTEM = {"idle_worker_killing_time_threshold_ms": 3_600_000}


def connect(config: RayConfig) -> None:
    """Joins the cluster at the configured address, or starts one inside this process.

    Raises:
        Interrupted: If there is none at that address.
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
        # Ray would wait for such a machine for ever; a cluster may still grow.
        raise ConfigError(
            "a retraining needs more CPUs than there are",
            where="ray.task_cpus",
            expected=f"at most {there:g} for it and its workers",
            got=f"{needed:g}",
        )


def _start(config: RayConfig) -> None:
    """Starts a Ray inside this process, once more if need be.

    Ray gives its own processes 30 seconds. On a machine that is busy with starting all of a
    federation that may be too little, and then it leaves them behind and raises a bare exception.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A connected Ray, at work for one federation.

    Args:
        root: The federation's folder, on storage that all nodes of the cluster share.
        config: Threads and CPUs of a task.
    """

    root: Path
    config: RayConfig

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot of the zoo; see `server.retrain`."""
        if self.config.jobs:
            retrain_as_job(self.config.jobs, self.root, id, commit)
            return Federation.open(self.root).releases.read(id)
        release: Release = self._done(retrain_here, id, commit)
        return release

    def plan(self, release: str, probes: Mapping[str, Tensor]) -> Iterator[tuple[str, Offer]]:
        """Candidates for sites, as they are ready.

        Sites are taken in chunks, `RayConfig.generators` at a time and each by one process, which
        keeps the release open for the next. A site's are used while those of later ones are made.

        Args:
            release: Id of the release that makes them.
            probes: (E, D) float32, contexts of each site; looked up when they are needed.

        Yields:
            Site and its candidates by kind.
        """
        sites = sorted(probes)
        chunks = [sites[i : i + _SITES_PER_TASK] for i in range(0, len(sites), _SITES_PER_TASK)]
        # Tasks and not actors: they find processes that have imported everything in rounds before.
        task: Any = ray.remote(
            num_cpus=self.config.task_cpus, max_retries=_RETRIES, num_returns="streaming"
        )(offers_here)
        streams: deque[Any] = deque()
        for chunk in chunks:
            if len(streams) == self.config.generators:
                yield from _each(streams.popleft())
            # Whoever was erased meanwhile is left out.
            known = {site: context for site in chunk if (context := probes.get(site)) is not None}
            if not known:
                continue
            contexts = torch.stack(list(known.values()))
            streams.append(task.remote(self.root, release, list(known), contexts, self.config))
        while streams:
            yield from _each(streams.popleft())

    def objections(self, id: str) -> tuple[str, ...]:
        """What speaks against a candidate release; see `server.gate`."""
        found: tuple[str, ...] = self._done(objections_here, id)
        return found

    def _done(self, job: Callable[..., Any], *asked: Any) -> Any:
        """What one task comes to, which gets the folder and the settings besides."""
        task: Any = ray.remote(num_cpus=self.config.task_cpus, max_retries=_RETRIES)(job)
        with typed_errors():
            return ray.get(task.remote(self.root, *asked, self.config))


def _each(stream: Any) -> Iterator[tuple[str, Offer]]:
    with typed_errors():
        for reference in stream:
            yield ray.get(reference)


def offers_here(
    root: Path, id: str, sites: Sequence[str], probes: Tensor, config: RayConfig
) -> Iterator[tuple[str, Offer]]:
    """Candidates for some sites, in a process that keeps the release open for the next ones."""
    torch.set_num_threads(config.threads)
    made = Federation.open(root).releases.path / id / "generator.safetensors"
    made_ns = made.stat().st_mtime_ns
    if not _opened(root, id, made_ns).is_current():
        _opened.cache_clear()
    yield from _opened(root, id, made_ns).offers(sites, probes)


@lru_cache(maxsize=1)
def _opened(root: Path, id: str, made_ns: int) -> Workshop:  # noqa: ARG001 - part of the key
    return Workshop.open(Federation.open(root), id)


def retrain_here(root: Path, id: str, commit: int, config: RayConfig) -> Release:
    """The retraining in this process, but for the flow where Ray Train is to fit it."""
    torch.set_num_threads(config.threads)
    # Of retrainings that were killed; it may hold what is erased by now.
    shutil.rmtree(root / "training", ignore_errors=True)
    if not config.train_workers:
        return retrain(root, id, commit)
    # Ray Train takes two seconds to import.
    from server.training import TrainedFlow

    return retrain(root, id, commit, TrainedFlow(folder=root / "training" / id, config=config))


def objections_here(root: Path, id: str, config: RayConfig) -> tuple[str, ...]:
    """The gate, in a process that may grow with the number of sites."""
    torch.set_num_threads(config.threads)
    federation = Federation.open(root)
    return objections(federation, federation.releases.read(id))


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raises what went wrong in a task or with its worker as one typed error."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, F2LError):
            raise error.cause from None
        if isinstance(error.cause, OSError):
            raise error.cause from error
        if isinstance(error.cause, RayError):
            raise _lost(error.cause) from error
        raise RoundError(
            "a task failed on the cluster", got=f"{type(error.cause).__name__}: {error.cause}"
        ) from error
    except RayError as error:
        raise _lost(error) from error


def _lost(error: RayError) -> Interrupted:
    return Interrupted(
        "the cluster lost a task",
        got=type(error).__name__,
        remedy="Go on with the round; what sites have sent is in the zoo.",
    )
