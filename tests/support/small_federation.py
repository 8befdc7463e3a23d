"""A small federation on real data that needs no download: digits, a small network, few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from f2l_fed.config import load_config
from f2l_fed.data import Partition
from f2l_fed.targets.config import BackboneConfig
from server.federation.folder import Federation
from server.simulation.setup import Simulation, prepare

SETTINGS = (
    "target.name=mlp",
    "split.shots=20",
    "split.held_out_shots=5",
    "split.test_per_class=10",
    "split.validation_fraction=0",
    "split.validation_per_class=5",
    "split.minimum_examples=1",
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

FEW = ("first.steps=5", "later.steps=3", "flow.steps=20", "probe.anchors=1")
ANY_RELEASE = ("gate.min_explained=-100", "gate.min_conditioning=-100", "gate.max_dispersion=100")


def small_federation(
    out: Path,
    *,
    sites: int = 6,
    held_out: int = 2,
    seed: int = 1,
    settings: tuple[str, ...] = (),
    force: bool = False,
    scenario: str = "few-shot",
    baselines: bool = False,
    backbone: BackboneConfig | None = None,
) -> tuple[Federation, Partition]:
    """A prepared federation of few-shot sites with 5 of the 10 digits each, or of others."""
    config = load_config(None, [*SETTINGS, f"seed={seed}", *settings])
    simulation = Simulation(
        data=("digits",),
        scenario=scenario,
        sites=sites,
        held_out=held_out,
        rounds=1,
        out=out,
        config=config,
        baselines=baselines,
        backbone=backbone or BackboneConfig(),
    )
    return prepare(simulation, force=force)


def prepared(out: Path, *more: str, sites: int = 6) -> tuple[Federation, list[Path]]:
    """One that trains for a few steps only, and its ``site.toml`` files."""
    federation, _ = small_federation(out, sites=sites, settings=(*FEW, *more))
    return federation, sorted((out / "sites").glob("*/site.toml"))


def events(root: Path, name: str) -> list[dict[str, Any]]:
    """A federation's events of one name, in their order."""
    lines = map(json.loads, (root / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == name]
