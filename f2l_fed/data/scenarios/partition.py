"""The data of a federation: the examples of every site, as the site sees them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from f2l_fed.core.wording import number_of
from f2l_fed.data.dataset import Dataset
from f2l_fed.data.readers.agreed_scales import Scales, ScalingConfig
from f2l_fed.data.readers.config import AGREED, ReadingConfig
from f2l_fed.data.readers.raw_examples import Column
from f2l_fed.data.scenarios.config import SplitConfig, require_positive
from f2l_fed.data.scenarios.pool import merge_datasets
from f2l_fed.data.scenarios.registry import SCENARIOS
from f2l_fed.data.scenarios.site_data import (
    SiteData,
    agreed_reading,
    prepare_site,
    settled_reading,
)
from f2l_fed.data.scenarios.site_plan import Change, SitePlan
from f2l_fed.errors import DataError, UsageError

__all__ = ["LIKE_SITES", "Partition", "SiteChange", "partition"]

LIKE_SITES = ReadingConfig(scale="standard")
"""Settings of the data of new sites."""


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
        columns: The columns of a table or vector; empty for images.
        reading: Settings of every site's data.
        notes: Sites that were left out or have fewer classes than usual, as sentences.
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
    columns: tuple[Column, ...] = ()
    reading: ReadingConfig = field(default_factory=lambda: LIKE_SITES)
    notes: tuple[str, ...] = ()
    changes: tuple[SiteChange, ...] = ()

    @property
    def agreed_scales(self) -> Scales:
        """The scales of all sites; none where each has fitted its own."""
        return self.reading.scales if self.reading.scale == AGREED else {}

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
    reading: ReadingConfig = LIKE_SITES,
    scaling: ScalingConfig | None = None,
) -> Partition:
    """Divides datasets among sites, some of them held out of all training.

    Exact duplicates are dropped first. Every site prepares its examples as a real one does: it
    keeps a share aside to measure on, and fits all preprocessing on the others.

    Args:
        scenario: One of ``SCENARIOS``.
        datasets: What to divide.
        sites: Training sites, at least 1.
        held_out: Held-out sites of each kind, at least 1.
        seed: The run's seed; the same one gives the same partition.
        config: Settings of the split.
        reading: Settings of the data, for the sites' preprocessing.
        scaling: How the training sites agree on scales; None where each site fits its own.

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
    settled = settled_reading(pool, reading)
    if scaling is not None and (scaling.sites or scaling.agreed):
        settled = agreed_reading(plan.training, pool, settled, config, scaling)
    notes = list(plan.notes)

    def prepared(plans: Sequence[SitePlan], kind: str) -> tuple[SiteData, ...]:
        able = [site for site in plans if len(site.train) >= config.minimum_examples]
        trains = kind == "training"
        data = [prepare_site(site, pool, settled, config, trains=trains) for site in able]
        kept = tuple(one for one in data if len(one.y_train) >= config.minimum_examples)
        ways = max(len(site.classes) for site in plans)
        _note_small_sites(len(plans), len(kept), kind, ways, config, notes)
        return kept

    training = prepared(plan.training, "training")
    there = {site.name for site in training}
    changes = tuple(
        SiteChange(
            after=change.after,
            what=change.what,
            site=prepare_site(change.site, pool, settled, config, trains=True),
        )
        for change in plan.changes
        if change.site.name in there
    )
    later = [change.site for change in plan.changes]
    planned = (*plan.training, *later, *plan.seen, *(plan.unseen or ()))
    return Partition(
        scenario=scenario,
        sites=training,
        held_out={
            "seen": prepared(plan.seen, "held-out"),
            "unseen": None if plan.unseen is None else prepared(plan.unseen, "held-out"),
        },
        classes=max(len(site.classes) for site in planned),
        input_shape=training[0].x_train.shape[1:],
        shared_labels=plan.shared_labels,
        disjoint=plan.disjoint,
        pool=pool.names,
        columns=pool.columns,
        reading=settled,
        notes=tuple(notes),
        changes=changes,
    )


def _note_small_sites(
    count: int, kept: int, kind: str, ways: int, config: SplitConfig, notes: list[str]
) -> None:
    """Notes how many sites were left out; raises DataError if no site is left."""
    least = config.minimum_examples
    if not kept:
        raise DataError(
            f"no {kind} site has enough examples to take part, as in a deployment",
            expected=f"at least {least} to learn from, beside those kept aside to measure on",
            remedy=(
                f"Raise split.held_out_shots to {config.least_shots(ways)}"
                if kind == "held-out"
                else "Use fewer sites, or raise split.shots"
            )
            + f", or set split.minimum_examples below {least} for an experiment.",
        )
    if kept < count:
        have, are = ("has", "is") if count - kept == 1 else ("have", "are")
        notes.append(
            f"{count - kept} of {number_of(count, f'{kind} site')} {have} fewer than {least} "
            f"examples to learn from and {are} left out, since a site's policy refuses with so few."
        )
