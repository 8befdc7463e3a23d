"""The facts about the data and the machine of a simulation, for its result."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from typing import Any

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition
from f2l_fed.evaluation.arm_names import PROBE, label
from f2l_fed.targets.config import ADAPTER
from server.simulation.setup import Simulation


def simulation_facts(simulation: Simulation, divided: Partition) -> dict[str, Any]:
    """Facts about data and machine for the result."""
    config = replace(simulation.config, shared_labels=divided.shared_labels)
    notes = [_about_contexts(config), _about_examples(config), *divided.notes]
    counts = {len(site.classes) for site in divided.sites}
    if len(counts) > 1:
        notes.append(f"The training sites have {min(counts)} to {max(counts)} classes.")
    if not divided.disjoint:
        notes.append(
            "The data have too few images for all training sites, so some of them share examples."
        )
    if divided.held_out["unseen"] is None:
        notes.append(
            "Every class of the data is at some training site, so there are no sites with unseen "
            "classes."
        )
    return {
        "seed": simulation.config.seed,
        "scenario": simulation.scenario,
        "data": list(simulation.data) or [name for name, _ in simulation.own_sites],
        "sites": len(divided.sites),
        "held_out_sites": {
            kind: 0 if sites is None else len(sites) for kind, sites in divided.held_out.items()
        },
        "disjoint": divided.disjoint,
        **({"changes": _changes(simulation, divided)} if divided.changes else {}),
        "data_notes": notes,
        "machine": {
            "cpus": os.cpu_count() or 0,
            "platform": platform.platform(),
            "torch": torch.__version__,
        },
    }


def _changes(simulation: Simulation, divided: Partition) -> list[dict[str, Any]]:
    """The changes between the rounds: after which one, of which site, and what."""
    return [
        {"round": change.after, "site": change.site.name, "what": change.what}
        for change in divided.changes
        if change.after < simulation.rounds
    ]


def _about_examples(config: FederationConfig) -> str:
    """The note on the examples that sites learn from."""
    share = config.split.validation_fraction
    limit = f"a site takes part with {config.split.minimum_examples} or more examples"
    if share:
        return f"Sites keep {share:.0%} of their examples aside to measure on, and {limit}."
    return f"Sites learn from all of their examples and measure on further ones, and {limit}."


def _about_contexts(config: FederationConfig) -> str:
    """The note on what a site computes before its first local step."""
    shots = config.probe.shots
    if config.has_body:
        frozen = config.target.name == ADAPTER
        features = "the frozen backbone" if frozen else "the federation's body"
        return (
            f"A site's context is a logistic head on all of its examples, solved on {features}; "
            f"the map is learnt from heads on {shots} examples per class. The steps of solving "
            "heads are not counted as local steps."
        )
    if config.has_shared_network:
        return (
            f"A site's context takes {config.probe.steps} gradient steps on {shots} times as many "
            "examples as there are classes, in its own label mix; they are not counted as local "
            "steps."
        )
    return (
        f"A site's context takes {config.probe.steps} gradient steps on {shots} examples per "
        f"class, which are not counted as local steps. The start '{label(PROBE)}' is the network "
        "after these steps."
    )
