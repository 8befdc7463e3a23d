"""The retraining: from the zoo's newest records to a candidate release."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.admission import load_history
from f2l_fed.audit.diagnostics import Audit
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import RecordErased, RoundError
from f2l_fed.flow import fit_flow
from f2l_fed.generator.fit import FitField, fit_generator
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.release_records import read_records, while_erasing
from server.generator.training_set import expectation, newest_records, sites_heard_last


def retrain(root: Path, id: str, commit: int, fit_field: FitField = fit_flow) -> Release:
    """Fits a generator on one snapshot of the zoo and writes it as a candidate.

    Args:
        root: The federation's folder.
        id: Id of the new release; a candidate of this id is replaced, so a repetition is harmless.
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
        site: exclusion.reason
        for site, exclusion in load_history(federation.screening).excluded.items()
        if site in newest and newest[site][0].round == exclusion.round
    }
    used = sites_heard_last(
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
