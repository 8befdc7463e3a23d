"""The heavy work as Ray tasks: retraining, and candidates for many sites at once.

Tasks get paths and names, not arrays: they read zoo and releases themselves, so the object store
never holds anything that exists nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from torch import Tensor

from f2l_fed.candidates import Offer, Records, for_training
from f2l_fed.config import RayConfig
from f2l_fed.errors import F2LError, RoundError
from f2l_fed.seeds import generator_for
from server.federation import Federation
from server.releases import Release
from server.retrain import release_records, retrain

_SITES_PER_TASK = 16
_TASKS_AHEAD = 2


def connect(config: RayConfig) -> None:
    """Joins the cluster at the configured address, or starts one inside this process."""
    if ray.is_initialized():
        return
    ray.init(
        address=config.address or "local",
        num_cpus=None if config.address else config.cpus or None,
        include_dashboard=None if config.address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


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
        release: Release = _got(
            self._task(_retrain_on_worker).remote(self.root, id, commit, self.config)
        )
        return release

    def plan(self, release: str, probes: Mapping[str, Tensor]) -> Iterator[tuple[str, Offer]]:
        """Candidates for sites, as they are ready.

        Args:
            release: Id of the release that makes them.
            probes: (E, D) float32, contexts of each site.

        Yields:
            Site and its candidates by kind; chunks of sites are made while earlier ones are used.
        """
        sites = sorted(probes)
        chunks = [sites[i : i + _SITES_PER_TASK] for i in range(0, len(sites), _SITES_PER_TASK)]
        task = self._task(_plan_on_worker)
        waiting: list[Any] = []
        for chunk in chunks:
            if len(waiting) == _TASKS_AHEAD:
                yield from self._first(waiting)
            contexts = torch.stack([probes[site] for site in chunk])
            waiting.append(task.remote(self.root, release, chunk, contexts, self.config))
        while waiting:
            yield from self._first(waiting)

    def _first(self, waiting: list[Any]) -> Iterator[tuple[str, Offer]]:
        yield from _got(waiting.pop(0)).items()

    def _task(self, function: Any) -> Any:
        return ray.remote(num_cpus=self.config.task_cpus)(function)


def _got(reference: Any) -> Any:
    """The value of a task; what went wrong in it or with its worker as one typed error."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, F2LError):
            raise error.cause from None
        raise RoundError(
            "a task failed on the cluster", got=f"{type(error.cause).__name__}: {error.cause}"
        ) from error
    except RayError as error:
        raise RoundError(
            "the cluster lost a task",
            got=type(error).__name__,
            remedy="Start the round again; what sites have sent is in the zoo.",
        ) from error


def _retrain_on_worker(root: Path, id: str, commit: int, config: RayConfig) -> Release:
    torch.set_num_threads(config.threads)
    return retrain(root, id, commit)


def _plan_on_worker(
    root: Path, id: str, sites: Sequence[str], probes: Tensor, config: RayConfig
) -> dict[str, Offer]:
    torch.set_num_threads(config.threads)
    return candidates_for(Federation.open(root), id, sites, probes)


def candidates_for(
    federation: Federation, id: str, sites: Sequence[str], probes: Tensor
) -> dict[str, Offer]:
    """Candidates by kind for every episode of some sites, by name.

    Args:
        federation: The folder.
        id: Release that makes them.
        sites: Names.
        probes: (len(sites), E, D) float32, their contexts.
    """
    release = federation.releases.read(id)
    generator = federation.releases.generator(id)
    expected = generator.expect(probes.flatten(0, 1)).view_as(probes)
    records = release_records(federation, release)
    known = {site: row for row, site in enumerate(release.sites)}
    without = federation.releases.expected(id)
    offered: dict[str, Offer] = {}
    for index, site in enumerate(sites):
        others, own = records, expected[index]
        if site in known:
            # A known site gets what a new site would get: its own record would only be repeated
            # to it, and the next retraining would learn nothing from the answer.
            row = known[site]
            mine = slice(row * without.shape[1], (row + 1) * without.shape[1])
            others = Records(
                contexts=_without(records.contexts, mine), weights=_without(records.weights, mine)
            )
            own = without[row]
        rng = generator_for(federation.config.lineage, id, site, "candidates")
        config = federation.config.candidates
        offered[site] = tuple(
            for_training(generator, others, probe, start, config, rng)
            for probe, start in zip(probes[index], own, strict=True)
        )
    return offered


def _without(rows: Tensor, left_out: slice) -> Tensor:
    return torch.cat([rows[: left_out.start], rows[left_out.stop :]])
