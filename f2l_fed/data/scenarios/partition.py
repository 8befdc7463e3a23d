"""The data of a federation: the examples of every site, as the site sees them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from f2l_fed.data.array_checks import FloatArray, IntArray
from f2l_fed.data.dataset import Dataset
from f2l_fed.data.readers.feature_encoding import is_constant
from f2l_fed.data.scenarios.config import SplitConfig, require_positive
from f2l_fed.data.scenarios.pool import Pool, merge_datasets
from f2l_fed.data.scenarios.registry import SCENARIOS
from f2l_fed.data.scenarios.site_plan import Change, ScenarioPlan, SitePlan
from f2l_fed.errors import UsageError

__all__ = ["Partition", "SiteChange", "SiteData", "partition"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteData:
    """The examples of one site.

    Args:
        name: ``site-000`` and on; ``seen-000`` and ``unseen-000`` where held out.
        x_train: (n, ...) float32.
        y_train: (n,) int64, the site's own labels.
        x_test: (m, ...) float32.
        y_test: (m,) int64.
        classes: Pool class of each of the site's labels.
    """

    name: str
    x_train: FloatArray
    y_train: IntArray
    x_test: FloatArray
    y_test: IntArray
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteChange:
    """A change of one site between two rounds.

    Args:
        after: Number of rounds that are over by then.
        what: "joined", "left", "classes" (further ones) or "camera" (another one).
        site: The site as it is from then on; where it leaves, as it was.
    """

    after: int
    what: Change
    site: SiteData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition:
    """The data of a federation.

    Args:
        scenario: Name of the scenario.
        sites: Sites that take part in training, each as it is first.
        held_out: ``seen`` and ``unseen`` sites that never do; ``unseen`` is None where the
            scenario or the pool has no classes to spare. No held-out example is a training
            site's.
        classes: Outputs that a network needs; the most classes that a site has.
        input_shape: (C, H, W) or (F,).
        shared_labels: Whether a label means the same at every site.
        disjoint: Whether no two training sites have an example in common.
        pool: Names of the datasets.
        changes: Changes of sites between rounds, in their order.
    """

    scenario: str
    sites: tuple[SiteData, ...]
    held_out: dict[str, tuple[SiteData, ...] | None]
    classes: int
    input_shape: tuple[int, ...]
    shared_labels: bool
    disjoint: bool
    pool: tuple[str, ...]
    changes: tuple[SiteChange, ...] = ()

    def after(self, rounds: int) -> dict[str, SiteData]:
        """The sites that are there after so many rounds, each as it is then, by name."""
        there = {site.name: site for site in self.sites}
        for change in self.changes:
            if change.what == "joined" and change.after > rounds:
                del there[change.site.name]
            elif change.what != "joined" and change.after <= rounds:
                there[change.site.name] = change.site
                if change.what == "left":
                    del there[change.site.name]
        return there


def partition(
    scenario: str,
    datasets: Sequence[Dataset],
    *,
    sites: int,
    held_out: int,
    seed: int,
    config: SplitConfig,
) -> Partition:
    """Divides datasets among sites, some of them held out of all training.

    Exact duplicates are dropped first. Vectors are standardised per feature by the mean and
    standard deviation of the training sites' own training examples.

    Args:
        scenario: One of ``SCENARIOS``.
        datasets: What to divide.
        sites: Training sites, at least 1.
        held_out: Held-out sites of each kind, at least 1.
        seed: The run's seed; the same one gives the same partition.
        config: Settings of the split.

    Raises:
        UsageError: If the scenario is unknown or a count is not positive.
        DataError: If the data do not suffice for the scenario.
    """
    if scenario not in SCENARIOS:
        near = difflib.get_close_matches(scenario, SCENARIOS, n=1)
        raise UsageError(
            f"unknown scenario {scenario!r}",
            expected=f"one of {', '.join(SCENARIOS)}",
            remedy=f"Did you mean {near[0]!r}?" if near else "Choose one of these names.",
        )
    require_positive("sites", sites)
    require_positive("held_out", held_out)
    pool = merge_datasets(datasets)
    plan = SCENARIOS[scenario](pool, sites=sites, held_out=held_out, seed=seed, config=config)
    rescale = _standardiser(pool, plan)

    def render(site: SitePlan) -> SiteData:
        return _render(site, pool, rescale)

    later = [change.site for change in plan.changes]
    planned = (*plan.training, *later, *plan.seen, *(plan.unseen or ()))
    return Partition(
        scenario=scenario,
        sites=tuple(map(render, plan.training)),
        held_out={
            "seen": tuple(map(render, plan.seen)),
            "unseen": None if plan.unseen is None else tuple(map(render, plan.unseen)),
        },
        classes=max(len(site.classes) for site in planned),
        input_shape=pool.shape,
        shared_labels=plan.shared_labels,
        disjoint=plan.disjoint,
        pool=pool.names,
        changes=tuple(
            SiteChange(after=change.after, what=change.what, site=render(change.site))
            for change in plan.changes
        ),
    )


def _standardiser(pool: Pool, plan: ScenarioPlan) -> Callable[[FloatArray], FloatArray]:
    if len(pool.shape) != 1:
        return lambda x: x
    rows = np.unique(np.concatenate([site.train for site in plan.training]))
    known = pool.x[rows]
    mean, spread = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    # A feature that never varied says nothing; it must not blow up where it does vary.
    scale = np.where(is_constant(known, spread), 1.0, spread)
    return lambda x: ((x - mean) / scale).astype(np.float32)


def _render(site: SitePlan, pool: Pool, rescale: Callable[[FloatArray], FloatArray]) -> SiteData:
    rows = np.concatenate([site.train, site.test])
    x = rescale(pool.x[rows])
    if site.camera is not None:
        x = site.camera(x)
    own_label = np.full(pool.classes, -1)
    own_label[list(site.classes)] = np.arange(len(site.classes))
    y = own_label[pool.y[rows]]
    cut = len(site.train)
    return SiteData(
        name=site.name,
        x_train=x[:cut],
        y_train=y[:cut],
        x_test=x[cut:],
        y_test=y[cut:],
        classes=site.classes,
    )
