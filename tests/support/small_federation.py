"""A small federation on real data that needs no download: digits, a small network, few steps."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.config import load_config
from f2l_fed.data import Partition
from server.federation import Federation
from server.simulate import Simulation, prepare

SETTINGS = (
    "target.name=mlp",
    "split.shots=20",
    "split.held_out_shots=5",
    "split.test_per_class=10",
    "split.validation_per_class=5",
    "probe.episodes=2",
    "first.steps=40",
    "flow.steps=40",
    "flow.width=32",
    "flow.check_every=20",
    "codec.common=8",
    "codec.rows=4",
    "candidates.samples=2",
    "candidates.training_samples=1",
)


def small_federation(
    out: Path,
    *,
    sites: int = 6,
    held_out: int = 2,
    seed: int = 1,
    settings: tuple[str, ...] = (),
    force: bool = False,
) -> tuple[Federation, Partition]:
    """A prepared federation of few-shot sites with 5 of the 10 digits each."""
    config = load_config(None, [*SETTINGS, f"seed={seed}", *settings])
    simulation = Simulation(
        data=("digits",),
        scenario="few-shot",
        sites=sites,
        held_out=held_out,
        rounds=1,
        out=out,
        config=config,
    )
    return prepare(simulation, force=force)
