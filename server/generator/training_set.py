"""The training set of a retraining: the newest comparable records of each site."""

from __future__ import annotations

from hashlib import sha256

from torch import Tensor

from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.linear_prior import Expectation
from f2l_fed.zoo import Record
from f2l_fed.zoo.reading.snapshot import Snapshot
from server.federation.folder import Federation
from server.federation.release import Release


def newest_records(
    federation: Federation, snapshot: Snapshot, parent: Release | None
) -> dict[str, list[Record]]:
    """The records of each site's newest complete round with comparable probes, by site.

    Probes are comparable if they start from the same anchor as those after the parent.

    Args:
        federation: The folder.
        snapshot: Of its zoo.
        parent: The release that sites get; None before the first.
    """
    anchor = _anchor_after(federation, parent)
    known: dict[str, bool] = {}

    def comparable(made_by: str) -> bool:
        if made_by not in known:
            release = federation.releases.find(made_by) if made_by else None
            there = release is not None or not made_by
            known[made_by] = there and _anchor_after(federation, release) == anchor
        return known[made_by]

    # Round by round from the newest: earlier ones, and their releases, are rarely looked at.
    waiting, found = snapshot.rounds(), dict[str, list[Record]]()
    episodes = federation.config.pairs
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
            # Imported records have other keys.
            rows = [by_key.get(f"{number}/{site}/{episode}") for episode in range(episodes)]
            complete = [record for record in rows if record is not None]
            if len(complete) == episodes:
                found[site] = complete
                del waiting[site]
    return dict(sorted(found.items()))


def sites_heard_last(by_site: dict[str, list[Record]], max_sites: int) -> dict[str, list[Record]]:
    """The sites with the newest rounds, by name; ties are broken by a hash of the name."""
    if len(by_site) <= max_sites:
        return by_site

    def age(site: str) -> tuple[int, str]:
        return -by_site[site][0].round, sha256(site.encode()).hexdigest()

    return {site: by_site[site] for site in sorted(sorted(by_site, key=age)[:max_sites])}


def _anchor_after(federation: Federation, release: Release | None) -> str:
    """Digest of the anchor that probes start from after a release."""
    return sha256(federation.next_anchor(release).numpy().tobytes()).hexdigest()


def expectation(
    federation: Federation,
    parent: Release | None,
    sites: list[str],
    contexts: Tensor,
    work: Workspace = IN_MEMORY,
) -> Expectation | None:
    """The parent's predictions for contexts; None if its probes start from another anchor.

    A mixed fleet has none either: its families are found anew from all records.

    Args:
        federation: The folder.
        parent: The release to refine; None before the first.
        sites: The n sites.
        contexts: (n, E, D) float32, of these sites.
        work: Where the predictions lie.
    """
    if parent is None or federation.body is not None or federation.config.has_shared_network:
        return None
    if parent.anchors < federation.config.probe.anchors:
        return None
    generator = federation.releases.generator(parent.id)
    if generator.fleet is not None:
        return None
    prior = generator.prior
    rows = contexts.flatten(0, 1)
    made = work.empty(*rows.shape)
    for some in blocks(rows.shape[1], len(rows)):
        made[some] = prior(rows[some])
    expected = made.view_as(contexts)
    without = federation.releases.expected(parent.id)
    row = {site: index for index, site in enumerate(parent.sites)}
    for index, site in enumerate(sites):
        if site in row:
            expected[index] = without[row[site]]
    return Expectation(prior=prior, expected=expected)
