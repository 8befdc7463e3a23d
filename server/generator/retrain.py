"""The retraining: from the zoo's newest records to a candidate release."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

from f2l_fed.admission import load_history
from f2l_fed.audit.diagnostics import Audit, explained
from f2l_fed.audit.release_limits import FEW_SITES, decide
from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import RecordErased, RoundError
from f2l_fed.flow import fit_flow
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.fit import FitField, GeneratorFit, fit_generator, fit_without_records
from f2l_fed.generator.generator import Bodies
from f2l_fed.generator.residual_filter import filter_sites
from f2l_fed.generator.serialization import BODY
from f2l_fed.local_training.temperature import fitted_temperature
from f2l_fed.matrices.blocks import EachPart, in_turn
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.shared_prior import fit_around
from f2l_fed.targets.body import body_digest
from f2l_fed.zoo import Record
from server.federation.body_updates import BodyUpdate, BodyUpdates
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.next_body import next_body
from server.generator.next_network import next_networks, server_point
from server.generator.release_records import read_records, while_erasing
from server.generator.training_set import expectation, newest_records, sites_heard_last

_FIELD_STEPS = 100
"""Most gradient steps of the flow's field where heads are generated."""


def retrain(
    root: Path,
    id: str,
    commit: int,
    fit_field: FitField = fit_flow,
    each_part: EachPart = in_turn,
) -> Release:
    """Fits a generator on one snapshot of the zoo and writes it as a candidate.

    Args:
        root: The federation's folder.
        id: Id of the new release; a candidate of this id is replaced, so a repetition is harmless.
        commit: The snapshot.
        fit_field: Fits the flow, here or elsewhere.
        each_part: Works on parts of records that lie on a disk, here or elsewhere.

    Raises:
        RoundError: If the snapshot holds too few sites.
    """
    federation = Federation.open(root)

    def job() -> Release:
        with _workspace(federation, id, each_part) as made:
            return _retrained(federation, id, commit, fit_field, made)

    return while_erasing(federation, job)


def records_folder(root: Path, id: str) -> Path:
    """The folder of the records of a retraining that are too many for the memory."""
    return root / "training" / f"{id}-records"


@contextmanager
def _workspace(
    federation: Federation, id: str, each_part: EachPart
) -> Iterator[Callable[[int], Workspace]]:
    """Makes a workspace for so many numbers, which is emptied at the end."""
    folder = records_folder(federation.root, id)

    def made(numbers: int) -> Workspace:
        if 4 * numbers <= federation.config.ray.memory_mb * 1e6:
            return IN_MEMORY
        folder.mkdir(parents=True, exist_ok=True)
        return Workspace(folder=folder, each=each_part)

    try:
        shutil.rmtree(folder, ignore_errors=True)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _retrained(
    federation: Federation,
    id: str,
    commit: int,
    fit_field: FitField,
    workspace: Callable[[int], Workspace],
) -> Release:
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
    updates = _updates(federation, parent)
    heard = len(used.keys() | ({update.site for update in updates} - left_out.keys()))
    if heard < config.round.minimum:
        raise RoundError(
            "too few sites for a retraining",
            where=f"commit {commit} of the zoo",
            expected=f"at least {config.round.minimum}",
            got=str(heard),
            remedy="Add sites, or lower round.minimum.",
        )
    if len(used) < config.round.minimum:
        # Sites with a privacy budget return no heads, but bodies.
        used = {}
    rows, size = [one for own in used.values() for one in own], federation.target.layout.size
    work = workspace(2 * len(rows) * size)
    records = read_records(snapshot, rows, work)
    contexts = records.contexts.view(len(used), config.pairs, size)
    weights = records.weights.view_as(contexts)
    prior = None
    if federation.body is not None and used:
        filtered = filter_sites(contexts, weights, federation.symmetry)
        odd, prior, sites = filtered.left_out, filtered.fit, list(used)
        left_out |= {sites[row]: reason for row, reason in odd.items()}
        kept = [row for row in range(len(sites)) if row not in odd]
        used = {sites[row]: used[sites[row]] for row in kept}
        contexts, weights = contexts[kept], weights[kept]
    anchor = federation.next_anchor(parent)
    shared = _shared_networks(federation, parent, anchor, weights, list(used.values()))
    if shared is not None:
        prior = fit_around(contexts, weights, federation.symmetry, anchor, shared.own, work)
    rng = generator_for(config.lineage, id, "retrain")
    if used:
        fit = fit_generator(
            contexts,
            weights,
            federation.target,
            federation.symmetry,
            _settings(federation),
            rng,
            anchor=federation.prior_anchor(parent),
            before=expectation(federation, parent, list(used), contexts, work),
            prior=prior,
            fit_field=fit_field,
            work=work,
        )
    else:
        fit = fit_without_records(
            federation.target, federation.symmetry, config.generator, rng, federation.first_start
        )
    fitted, model, figures = used, fit.model() if used else "", _figures(fit, weights, work)
    if federation.body is not None and used and (why := _too_few(figures, len(used), config)):
        fit = fit_without_records(
            federation.target, federation.symmetry, config.generator, rng, federation.first_start
        )
        used, model, figures = {}, why, {}
    since = federation.zoo.erasures()
    if any(since.get(site, 0) > commit for site in fitted):
        raise RecordErased("a site was erased while a release was fitted on it", where=id)
    updates = [update for update in updates if update.site not in left_out]
    bodies = _bodies(federation, anchor, updates)
    chain = () if bodies is None else (*federation.chain(parent), body_digest(bodies.next))
    mean = fit.generator.mean if shared is None else shared.own.clone()
    fit = replace(fit, generator=replace(fit.generator, bodies=bodies or shared, mean=mean))
    release = Release(
        id=id,
        state="candidate",
        parent=parent.id if parent is not None else "",
        snapshot=commit,
        sites=tuple(used),
        records=tuple(record.key for rows in used.values() for record in rows),
        anchors=1 if parent is None else min(parent.anchors + 1, config.probe.anchors),
        left_out=left_out,
        figures=figures | _accuracy(federation, parent, used),
        parameters=federation.network.layout.size,
        chain=chain,
        body_sites=tuple(update.site for update in updates),
        temperatures=_temperatures(federation, parent, [rows[0] for rows in fitted.values()]),
        model=model,
        families=() if fit.families is None else tuple(fit.families.labels.tolist()),
        scales=federation.frame.scales,
    )
    return federation.releases.write_candidate(release, fit)


def _too_few(figures: Mapping[str, float], sites: int, config: FederationConfig) -> str:
    """The reason, in words, why a map of heads is left out; "" where it stays.

    That of many sites is the gate's to judge, which keeps the release before.
    """
    if sites >= FEW_SITES:
        return ""
    reasons = decide(figures, config.limits).reasons
    return (
        f"The heads of the sites' own few examples: {sites} sites are too few for a map of heads, "
        f"since {' '.join(reasons)}"
        if reasons
        else ""
    )


def _settings(federation: Federation) -> GeneratorConfig:
    """The generator's settings; with a body the field serves the audit alone, and is fitted less.

    Sites pull their heads to the prior's, and draws around it have made none of them better.
    Around a shared network nothing is drawn, and there is one family.
    """
    settings = federation.config.generator
    if federation.config.has_shared_network:
        settings = replace(settings, prior=replace(settings.prior, families=1))
    most = 0 if federation.config.has_shared_network else _FIELD_STEPS
    if federation.body is None and most:
        return settings
    flow = settings.flow
    return replace(settings, flow=replace(flow, steps=min(flow.steps, most)))


def _shared_networks(
    federation: Federation,
    parent: Release | None,
    started: Tensor,
    weights: Tensor,
    records: Sequence[Sequence[Record]],
) -> Bodies | None:
    """The shared networks of the new release, of (n, E, D) networks; None where there are none."""
    if not federation.config.has_shared_network:
        return None
    last, config = None, federation.config
    if parent is not None:
        own = federation.releases.part(parent.id, BODY)
        last = server_point(federation.anchor(parent), own, config.shared)
    # A site that keeps the number to itself counts like one with the median number.
    told = [rows[0].metrics.get("examples", nan) for rows in records]
    known = [count for count in told if count == count] or [1.0]
    counts = torch.tensor(told).nan_to_num(median(known))
    return next_networks(
        federation.target, started, last, weights[:, 0], counts, config.aggregate, config.shared
    )


def _temperatures(
    federation: Federation, parent: Release | None, records: Sequence[Record]
) -> tuple[tuple[int, float], ...]:
    """The temperatures by what the sites have measured; the parent's where none has."""
    if federation.body is None:
        return ()
    found = fitted_temperature([record.metrics for record in records])
    if found is None:
        return () if parent is None else parent.temperatures
    return ((federation.config.probe.shots, found),)


def _figures(fit: GeneratorFit, weights: Tensor, work: Workspace) -> dict[str, float]:
    """The figures of a fit; none where there was nothing to fit."""
    if not len(weights):
        return {}
    audit = Audit.of(weights[:, 0], fit.held_out[:, 0], fit.drawn, work=work)
    found = {**fit.figures(), **audit.figures()}
    if fit.families is not None:
        # Before a new site has chosen by its own examples, of which family its network is.
        found["explained_as_new"] = explained(weights[:, 0], fit.held_out_as_new[:, 0])
    return found


def _accuracy(
    federation: Federation, parent: Release | None, used: Mapping[str, Sequence[Record]]
) -> dict[str, float]:
    """The accuracy that sites declare for their own networks of the parent, and what they gained.

    The gain is the median over that of their networks of the release before; there is none without
    a shared network, or where no site declares both.
    """
    if not federation.config.has_shared_network or parent is None:
        return {}
    now = _declared([rows[0] for rows in used.values()])
    before = _declared(federation.zoo.snapshot(parent.snapshot).records(keys=parent.records))
    both = now.keys() & before.keys()
    found = {"accuracy": fmean(now.values())} if now else {}
    if parent.parent and both:
        # The median: of what sites declare, one lie must not hold up every release.
        found["accuracy_gain"] = median(now[site] - before[site] for site in both)
    return found


def _declared(records: Iterable[Record]) -> dict[str, float]:
    """The accuracy of their own networks that sites declare, by name."""
    told = ((record.site, record.metrics.get("accuracy_after")) for record in records)
    return {site: accuracy for site, accuracy in told if accuracy is not None}


def _updates(federation: Federation, parent: Release | None) -> list[BodyUpdate]:
    """The updates of the next body by sites that were not erased; none without a body."""
    if federation.body is None:
        return []
    erased = federation.zoo.erasures()
    known = BodyUpdates.of(federation.root).read(parent.id if parent else "")
    return [update for update in known if update.site not in erased]


def _bodies(federation: Federation, body: Tensor, updates: Sequence[BodyUpdate]) -> Bodies | None:
    """The bodies of the new release; None without."""
    if federation.body is None:
        return None
    following = next_body(body, updates, federation.config.aggregate, first=federation.anchor(None))
    return Bodies(own=body, next=following)
