"""The jobs of the compute backend, as functions of one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from f2l_fed.config import RayConfig
from f2l_fed.core.device import device_of
from f2l_fed.core.private_files import private_files
from f2l_fed.flow import fit_flow
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.matrices.blocks import EachPart, in_turn
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.candidates import CandidateFactory
from server.generator.gate import objections
from server.generator.retrain import retrain


def candidates_here(
    root: Path, id: str, sites: Sequence[str], probes: Tensor, config: RayConfig
) -> Iterator[tuple[str, CandidateSet]]:
    """Makes candidates for some sites; the process keeps the release open for the next ones."""
    torch.set_num_threads(config.threads)
    made = Federation.open(root).releases.path / id / "generator.safetensors"
    made_ns = made.stat().st_mtime_ns
    with private_files():
        if not _opened(root, id, made_ns, config.device).is_current():
            _opened.cache_clear()
        yield from _opened(root, id, made_ns, config.device).candidates(sites, probes)


@lru_cache(maxsize=1)
def _opened(root: Path, id: str, made_ns: int, device: str) -> CandidateFactory:  # noqa: ARG001
    # The time of the file is a part of the key.
    return CandidateFactory.open(Federation.open(root), id, device_of(device, "ray.device"))


@private_files()
def retrain_here(root: Path, id: str, commit: int, config: RayConfig) -> Release:
    """Retrains in this process; Ray Train fits the flow if the configuration says so.

    Parts of records that lie on a disk are other tasks, if it says so.
    """
    torch.set_num_threads(config.threads)
    # Left by retrainings that were killed; it may hold latents of sites that are erased by now.
    shutil.rmtree(root / "training", ignore_errors=True)
    each_part: EachPart = in_turn
    if config.part_workers:
        # Ray takes a second and a half to import.
        from server.cluster.record_parts import PartTasks

        each_part = PartTasks(config=config)
    if not config.train_workers:
        fit_here = partial(fit_flow, device=device_of(config.device, "ray.device"))
        return retrain(root, id, commit, fit_here, each_part)
    # Ray Train takes two seconds to import.
    from server.cluster.flow_training import TrainedFlow

    fit_field = TrainedFlow(folder=root / "training" / id, config=config)
    return retrain(root, id, commit, fit_field, each_part)


@private_files()
def objections_here(root: Path, id: str, config: RayConfig) -> tuple[str, ...]:
    """Judges a release in a process whose memory may grow with the number of sites."""
    torch.set_num_threads(config.threads)
    federation = Federation.open(root)
    return objections(federation, federation.releases.read(id))
