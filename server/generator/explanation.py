"""The explanation of the candidates that a release makes for a site, from a federation's folder."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from math import isclose, nan

import torch
from torch import Tensor

from f2l_fed.errors import ReleaseError, UsageError, ZooError
from f2l_fed.explain.attribution import RefinementStep, held_out_attribution, refinement_step_of
from f2l_fed.explain.explanation import EXPECTED, Explanation, explain, relative_changes
from f2l_fed.local_training.candidate_kinds import PRIOR, is_sample
from f2l_fed.zoo import Record
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.candidates import candidates_for
from server.generator.release_records import release_records
from server.generator.training_set import expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """The changes that a site made to the network that was predicted for it.

    Args:
        round: The round of the change.
        release: The release that predicted it; "" for the anchor.
        started_there: Whether the site started from that network. Otherwise it chose another
            candidate, and the changes are not its fine-tuning alone.
        changes: See `f2l_fed.explain.explanation.relative_changes`.
    """

    round: int
    release: str
    started_there: bool
    changes: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteExplanation:
    """The explanation of a release's prediction for one of its sites, as if the site were new.

    Args:
        site: The site.
        release: The release.
        learned_in: The releases whose regressions add up to its prior, oldest first.
        origin: Explanation of the prediction for the site's first record, without the site's own
            records.
        fine_tuning: The changes to the start before, which gave that record; None if that start
            can't be computed again.
    """

    site: str
    release: str
    learned_in: tuple[str, ...]
    origin: Explanation
    fine_tuning: FineTuning | None


def explain_site(federation: Federation, release: Release, site: str) -> SiteExplanation:
    """Explains a release's prediction for one of its sites.

    Raises:
        UsageError: If the release was not made from records of the site, or all sites share a
            network.
        ReleaseError: If a record that it learned from was erased or is damaged.
    """
    if federation.config.has_shared_network:
        raise UsageError(
            "a site's network is the one that all sites share and its own passes",
            where=f"release {release.id}",
            expected="a federation that generates heads or whole networks",
        )
    _require_known(release, site)
    try:
        steps = _steps(federation, release, site)
    except ZooError as error:
        raise ReleaseError(
            "can't be explained without a record that it learned from",
            where=f"release {release.id}",
            got=f"{error.where}: {error.what}",
            remedy="Explain a release that did not learn from it.",
        ) from error
    newest = list(steps.values())[-1]
    row = newest.sites.index(site)
    return SiteExplanation(
        site=site,
        release=release.id,
        learned_in=tuple(steps),
        origin=explain(
            list(steps.values()),
            held_out_attribution(list(steps.values()), site),
            _candidates(federation, release, site, newest.contexts[row]),
            site=site,
        ),
        fine_tuning=_fine_tuning(federation, release, site, newest),
    )


def _require_known(release: Release, site: str) -> None:
    if site in release.sites:
        return
    close = get_close_matches(site, release.sites, n=1)
    reason = release.left_out.get(site)
    raise UsageError(
        "the release was made without this site" if reason else "the release knows no such site",
        where=f"release {release.id}",
        expected=f"one of its {len(release.sites)} sites, such as {(close or release.sites)[0]}",
        got=f"{site}, left out as {reason}" if reason else site,
        remedy="release.json lists them.",
    )


def _steps(federation: Federation, release: Release, site: str) -> dict[str, RefinementStep]:
    """The releases that a site's prior adds up, by id, oldest first."""
    parent = federation.releases.read(release.parent) if release.parent else None
    records = release_records(federation, release)
    contexts = records.contexts.view(len(release.sites), -1, records.contexts.shape[1])
    before = expectation(federation, parent, list(release.sites), contexts)
    generator, weights, sites = (
        federation.releases.generator(release.id),
        records.weights.view_as(contexts),
        release.sites,
    )
    if generator.fleet is not None:
        # Its prior was fitted on the sites of its family alone, and on no earlier one.
        families, before = release.families or generator.family_of(weights[:, 0]).tolist(), None
        family = families[sites.index(site)]
        own = [row for row, other in enumerate(families) if other == family]
        sites = tuple(sites[row] for row in own)
        contexts, weights = contexts[own], weights[own]
    earlier = _steps(federation, parent, site) if before is not None and parent is not None else {}
    step = refinement_step_of(
        sites,
        contexts,
        weights,
        federation.symmetry,
        generator.config.prior,
        anchor=federation.prior_anchor(parent),
        before=before,
    )
    return {**earlier, release.id: step}


def _candidates(
    federation: Federation, release: Release, site: str, contexts: Tensor
) -> dict[str, Tensor]:
    """The prediction for a site's first record and what is drawn around it in a training round."""
    if federation.body is not None:
        # What the site is sent is predicted from all of its examples, by a map that knows its own
        # records: most of it would be said to come from itself.
        expected = federation.releases.expected(release.id)
        return {EXPECTED: expected[release.sites.index(site), 0]}
    made = candidates_for(federation, release.id, [site], contexts[None])[site][0]
    drawn = {kind: weights for kind, weights in made.items() if is_sample(kind)}
    return {EXPECTED: made[PRIOR], **drawn}


def _fine_tuning(
    federation: Federation, release: Release, site: str, newest: RefinementStep
) -> FineTuning | None:
    if federation.body is not None:
        # Heads are solved, whatever the site started from.
        return None
    row, episodes = newest.sites.index(site), newest.weights.shape[1]
    key = release.records[release.sites.index(site) * episodes]
    records = federation.zoo.snapshot(release.snapshot).records(site=site)
    record = next(r for r in records if r.key == key)
    before, after = _start(federation, record, newest.contexts[row]), newest.weights[row, 0]
    if before is None:
        return None
    moved = float(torch.linalg.vector_norm(after - before))
    return FineTuning(
        round=record.round,
        release=record.parent,
        started_there=isclose(moved, record.metrics.get("update_norm", nan), rel_tol=1e-4),
        changes=relative_changes(federation.target.layout, before, after),
    )


def _start(federation: Federation, record: Record, contexts: Tensor) -> Tensor | None:
    """(D,) float32, the prediction that a site's first record of a round started from.

    None for a site that was new while the anchor moved: its probe from the old one is not kept.
    """
    if not record.parent:
        return federation.anchor(None)
    made_by = federation.releases.read(record.parent)
    if record.site in made_by.sites:
        return federation.releases.expected(made_by.id)[made_by.sites.index(record.site), 0]
    before = expectation(federation, made_by, [record.site], contexts[None])
    return None if before is None else before.expected[0, 0]
