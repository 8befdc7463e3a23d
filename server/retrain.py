"""Retraining: from the zoo's newest records to a candidate release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from f2l_fed.admission import load_memory
from f2l_fed.audit import Audit
from f2l_fed.candidates import Records
from f2l_fed.errors import RecordErased, RoundError
from f2l_fed.flow import fit_flow
from f2l_fed.generator import Expectation, FitField, fit_generator
from f2l_fed.seeds import generator_for
from f2l_fed.zoo import Record
from f2l_fed.zoo.snapshot import Snapshot
from server.federation import Federation
from server.releases import Release

T = TypeVar("T")


def retrain(root: Path, id: str, commit: int, fit_field: FitField = fit_flow) -> Release:
    """Fits a generator on one snapshot of the zoo and writes it as a candidate.

    Args:
        root: The federation's folder.
        id: Id of the new release; one that exists is replaced, so that a repetition is harmless.
        commit: The snapshot.
        fit_field: Fits the flow, here or elsewhere.

    Raises:
        RoundError: If the snapshot holds too few sites.
    """
    federation = Federation.open(root)
    return while_erasing(federation, lambda: _retrained(federation, id, commit, fit_field))


def _retrained(federation: Federation, id: str, commit: int, fit_field: FitField) -> Release:
    config = federation.config
    snapshot = federation.zoo.snapshot(commit)
    parent = federation.releases.promoted()
    parent = parent if parent is not None and parent.id != id else None
    erased = federation.zoo.erasures()
    newest = {
        site: records
        for site, records in newest_records(federation, snapshot, parent).items()
        if erased.get(site, 0) <= commit
    }
    left_out = {
        site: doubt.reason
        for site, doubt in load_memory(federation.screening).doubted.items()
        if site in newest and newest[site][0].round == doubt.round
    }
    used = _heard_last(
        {site: records for site, records in newest.items() if site not in left_out},
        config.round.most,
    )
    if len(used) < config.round.minimum:
        raise RoundError(
            "too few sites for a retraining",
            where=f"commit {commit} of the zoo",
            expected=f"at least {config.round.minimum}",
            got=str(len(used)),
            remedy="Add sites, or lower round.minimum.",
        )
    records = read_records(snapshot, [record for rows in used.values() for record in rows])
    contexts = records.contexts.view(len(used), config.probe.episodes, -1)
    weights = records.weights.view_as(contexts)
    fit = fit_generator(
        contexts,
        weights,
        federation.target,
        federation.symmetry,
        config.generator,
        generator_for(config.lineage, id, "retrain"),
        anchor=federation.next_anchor(parent),
        before=expectation(federation, parent, list(used), contexts),
        fit_field=fit_field,
    )
    since = federation.zoo.erasures()
    if any(since.get(site, 0) > commit for site in used):
        raise RecordErased("a site was erased while a release was fitted on it", where=id)
    release = Release(
        id=id,
        state="candidate",
        parent=parent.id if parent is not None else "",
        snapshot=commit,
        sites=tuple(used),
        records=tuple(record.key for rows in used.values() for record in rows),
        anchors=1 if parent is None else min(parent.anchors + 1, config.probe.anchors),
        left_out=left_out,
        figures={
            **fit.figures(),
            **Audit.of(weights[:, 0], fit.held_out[:, 0], fit.drawn).figures(),
        },
        parameters=federation.target.layout.size,
    )
    return federation.releases.write_candidate(release, fit)


def newest_records(
    federation: Federation, snapshot: Snapshot, parent: Release | None
) -> dict[str, list[Record]]:
    """The records of each site's newest complete round whose probes can be compared, by name."""
    wanted = _starts_from(federation, parent)
    known: dict[str, bool] = {}

    def comparable(made_by: str) -> bool:
        if made_by not in known:
            release = federation.releases.find(made_by) if made_by else None
            there = release is not None or not made_by
            known[made_by] = there and _starts_from(federation, release) == wanted
        return known[made_by]

    # Round by round from the newest: earlier ones, and their releases, are rarely looked at.
    waiting, found = snapshot.rounds(), dict[str, list[Record]]()
    episodes = federation.config.probe.episodes
    for number in sorted({number for own in waiting.values() for number in own}, reverse=True):
        missing = {site for site, own in waiting.items() if number in own}
        if not missing:
            continue
        by_key = {
            record.key: record
            for record in snapshot.records(round=number)
            if record.site in missing and comparable(record.parent)
        }
        for site in missing:
            # What came by an import has other names.
            rows = [by_key.get(f"{number}/{site}/{episode}") for episode in range(episodes)]
            complete = [record for record in rows if record is not None]
            if len(complete) == episodes:
                found[site] = complete
                del waiting[site]
    return dict(sorted(found.items()))


def _heard_last(by_site: dict[str, list[Record]], most: int) -> dict[str, list[Record]]:
    """The sites with the newest rounds, by name; among equals, chosen by a hash of the name."""
    if len(by_site) <= most:
        return by_site

    def age(site: str) -> tuple[int, str]:
        return -by_site[site][0].round, sha256(site.encode()).hexdigest()

    return {site: by_site[site] for site in sorted(sorted(by_site, key=age)[:most])}


def _starts_from(federation: Federation, release: Release | None) -> str:
    """Digest of the anchor that probes start from after a release."""
    return sha256(federation.next_anchor(release).numpy().tobytes()).hexdigest()


def expectation(
    federation: Federation, parent: Release | None, sites: list[str], contexts: Tensor
) -> Expectation | None:
    """What the parent expected, if its probes start where the new ones do."""
    if parent is None or parent.anchors < federation.config.probe.anchors:
        return None
    prior = federation.releases.generator(parent.id).prior
    expected = prior(contexts.flatten(0, 1)).view_as(contexts)
    without = federation.releases.expected(parent.id)
    row = {site: index for index, site in enumerate(parent.sites)}
    for index, site in enumerate(sites):
        if site in row:
            expected[index] = without[row[site]]
    return Expectation(prior=prior, expected=expected)


def while_erasing(federation: Federation, job: Callable[[], T]) -> T:
    """Repeats what reads records if some were erased meanwhile; it has to leave those out then."""
    while True:
        erased = federation.zoo.erasures()
        try:
            return job()
        except RecordErased:
            if federation.zoo.erasures() == erased:
                raise


def read_records(snapshot: Snapshot, records: list[Record]) -> Records:
    """The contexts and weights of records, as matrices in their order."""
    return Records(
        contexts=torch.from_numpy(snapshot.contexts(records)),
        weights=torch.from_numpy(snapshot.weights(records)),
    )


def rows_left(federation: Federation, release: Release) -> list[int]:
    """The rows of a release's sites without those that were erased since it was fitted."""
    erased = federation.zoo.erasures()
    return [row for row, s in enumerate(release.sites) if erased.get(s, 0) <= release.snapshot]


def release_records(
    federation: Federation, release: Release, rows: Sequence[int] | None = None
) -> Records:
    """The records that a release was fitted on, in the order of its sites.

    Args:
        federation: The folder.
        release: The release.
        rows: Of which of its sites; of all if left out.

    Raises:
        RecordErased: If one of these was erased; `rows_left` names the others.
    """
    snapshot = federation.zoo.snapshot(release.snapshot)
    keys: Sequence[str] = release.records
    if rows is not None:
        episodes = len(keys) // len(release.sites)
        keys = [keys[row * episodes + episode] for row in rows for episode in range(episodes)]
    by_key = {record.key: record for record in snapshot.records(keys=keys)}
    return read_records(snapshot, [by_key[key] for key in keys])
