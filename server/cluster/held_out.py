"""The measurement of held-out sites: all arms of the promoted release, in jobs."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f2l_fed.core.private_files import private_files
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, confidence, measure, starts
from f2l_fed.evaluation.confidence import Predictions, summarise_confidence
from f2l_fed.evaluation.summary import summarise
from server.cluster.engine import Engine
from server.federation.folder import Federation
from server.generator.release_records import release_records, rows_left


def evaluate_held_out(
    federation: Federation,
    parts: Mapping[str, Sequence[HeldOutSite] | None],
    *,
    engine: Engine,
    stop: threading.Event,
) -> dict[str, Any]:
    """The ``held_out`` part of a result.

    Args:
        federation: A federation with a release; the promoted one is measured, or the newest if none
            is.
        parts: Held-out sites by kind; None for a kind without any.
        engine: Runs the jobs.
        stop: Set from outside to stop the measurement.

    Raises:
        RoundError: If it was stopped.
    """
    release = federation.releases.measured()
    measured: dict[str, Any] = {}
    for kind, sites in parts.items():
        if sites is None:
            measured[kind] = None
            continue
        shares = [sites[first :: engine.workers] for first in range(engine.workers)]
        shares, known = [share for share in shares if share], (federation.root, release.id)
        made = engine.gather(measurements_of, *known, each=shares, stop=stop)
        found = {name: one for part in made for name, one in part.items()}
        own = [found[site.name] for site in sites]
        measured[kind] = {
            **summarise([one.curves for one in own]),
            "confidence": summarise_confidence([one.confidence for one in own]),
        }
    return measured


@dataclass(frozen=True, slots=True)
class SiteMeasurement:
    """The measurement of one held-out site.

    Args:
        curves: Test accuracy after each number of local steps, by arm.
        confidence: Of every arm's start.
    """

    curves: dict[str, list[float]]
    confidence: dict[str, Predictions]


def curves_of(
    root: Path, id: str, sites: Sequence[HeldOutSite], arms: Collection[str] | None = None
) -> dict[str, dict[str, list[float]]]:
    """The accuracy curves of all arms, or of some, by site name."""
    return {name: one.curves for name, one in measurements_of(root, id, sites, arms).items()}


@private_files()
def measurements_of(
    root: Path, id: str, sites: Sequence[HeldOutSite], arms: Collection[str] | None = None
) -> dict[str, SiteMeasurement]:
    """Measures all arms, or some, by site name; runs in a process of its own."""
    torch.set_num_threads(1)
    federation = Federation.open(root)
    config, release = federation.config, served_release(federation, id)
    found = {}
    for site in sites:
        measured = {
            arm: start
            for arm, start in starts(release, site).items()
            if arms is None or arm in arms
        }
        curves = measure(
            release.network_of(site),
            measured,
            site,
            config.local,
            config.lineage,
            pulls=release.pulls(site),
        )
        found[site.name] = SiteMeasurement(curves, confidence(release, measured, site))
    return found


def served_release(federation: Federation, id: str) -> ServedRelease:
    """A release as it serves new sites, without records that are no longer in the zoo."""
    release = federation.releases.read(id)
    return ServedRelease(
        lineage=federation.config.lineage,
        target=federation.target,
        generator=federation.releases.generator(id),
        records=release_records(federation, release, rows_left(federation, release)),
        probe=federation.config.probe,
        candidates=federation.config.candidates,
        body=federation.body,
        head=federation.config.head,
        temperatures=release.temperatures,
        shared=federation.config.shared if federation.config.has_shared_network else None,
    )
