"""Federations for benchmarks: real apps, sites and zoo in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from f2l_fed.config import load_config
from f2l_fed.data import Partition
from f2l_fed.evaluation.arms import ServedRelease
from server.cluster.held_out import served_release
from server.federation.folder import Federation
from server.simulation.setup import Simulation, prepare
from tests.benchmarks.common import SEPARATE


@contextmanager
def laid_out(
    seed: int,
    sites: int,
    held_out: int,
    data: str,
    overrides: Sequence[str] = (),
    *,
    scenario: str = "few-shot",
) -> Iterator[tuple[Federation, Partition]]:
    """A new federation, without any round yet.

    Args:
        seed: Seed of all random draws.
        sites: Training sites.
        held_out: Held-out sites of each kind.
        data: Names of data sets, separated by commas.
        overrides: Overrides of the configuration; see `f2l_fed.config.load_config`.
        scenario: The scenario that divides the data.
    """
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            data=tuple(data.split(",")),
            scenario=scenario,
            sites=sites,
            held_out=held_out,
            rounds=1,
            out=Path(folder) / "out",
            config=replace(load_config(None, (*SEPARATE, *overrides)), seed=seed),
        )
        yield prepare(simulation, force=False)


def promoted(federation: Federation) -> ServedRelease:
    """The promoted release as it serves new sites."""
    release = federation.releases.promoted()
    assert release is not None
    return served_release(federation, release.id)
