"""Prometheus metrics of a federation folder, read at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.dashboard.state import read_view
from server.pki.expiry import certificate_ends

__all__ = ["federation_registry"]


class _FederationCollector(Collector):
    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir

    def collect(self) -> Iterator[Metric]:
        view = read_view(self._workdir)
        # Gauges, not counters: repeating a round or removing its file may lower them.
        steps = Counter(str(state.get("step", "unknown")) for state in view.rounds)
        rounds = GaugeMetricFamily("f2l_rounds", "Rounds by their present step.", labels=["step"])
        for step, number in sorted(steps.items()):
            rounds.add_metric([step], number)
        yield rounds
        for key in ("accepted", "rejected"):
            yield GaugeMetricFamily(
                f"f2l_updates_{key}",
                f"Updates of sites {key}, all rounds.",
                value=sum(_size(state.get(key)) for state in view.rounds),
            )
        yield GaugeMetricFamily(
            "f2l_unreadable", "Damaged files or groups of lines.", len(view.unreadable)
        )
        days = GaugeMetricFamily(
            "f2l_certificate_days_left",
            "Days until the certificates of authority, server and administrators end.",
            labels=["name"],
        )
        now = datetime.now(UTC)
        for name, end in certificate_ends(self._workdir / "certificates").items():
            days.add_metric([name], (end - now).total_seconds() / 86400)
        yield days
        figures = GaugeMetricFamily(
            "f2l_release_figure",
            "Figures of the promoted release.",
            labels=["release", "figure"],
        )
        promoted = view.promoted or {}
        for name, value in _numbers(promoted.get("figures")):
            figures.add_metric([str(promoted.get("id", "")), name], value)
        yield figures


def federation_registry(workdir: Path) -> CollectorRegistry:
    """A registry with the metrics of one federation and nothing else.

    Args:
        workdir: The federation's folder.
    """
    registry = CollectorRegistry()
    registry.register(_FederationCollector(workdir))
    return registry


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) and not isinstance(value, str) else 0


def _numbers(figures: Any) -> list[tuple[str, float]]:
    if not isinstance(figures, dict):
        return []
    return [
        (str(name), float(value))
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]
