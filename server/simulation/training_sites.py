"""The networks that training sites have after each round of a simulation, and their accuracy.

A site makes its own network of a release when the next round's task brings it, and declares its
accuracy there. Of the last release, which no task has brought yet, the networks are made here, by
the same functions and from what the sites have sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from f2l_fed.data import Partition, SiteData
from f2l_fed.local_training.adapted_network import adapted_head, adapted_network, site_context
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.shared_network import SharingSite
from f2l_fed.local_training.site_streams import NO_ROUND, steps_stream
from f2l_fed.targets import Target
from f2l_fed.targets.head_rows import padded, with_classes
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.rounds.state import RoundState


def training_accuracy(
    federation: Federation, divided: Partition, states: Sequence[RoundState]
) -> list[dict[str, Any]]:
    """The accuracy at training sites after each round, in the order of rounds.

    Args:
        federation: The federation after its rounds.
        divided: Its data; sites are measured on their test examples.
        states: The rounds.

    Returns:
        For each round that sites have a network of: its number, the release, and the mean over
        sites, "accuracy", and over their test examples, "weighted"; both from 0 to 1.
    """
    tests = {site.name: len(site.y_test) for site in divided.sites}
    snapshot, rows = federation.zoo.snapshot(), []
    for before, state in pairwise(states):
        told = {
            record.site: record.metrics["accuracy_after"]
            for record in snapshot.records(round=state.number)
            if "accuracy_after" in record.metrics
        }
        rows.append(_row(before.number, state.parent, told, tests))
    promoted = federation.releases.promoted()
    if promoted is not None and states:
        measured = own_accuracies(federation, promoted.id, divided.sites)
        rows.append(_row(states[-1].number, promoted.id, measured, tests))
    return [row for row in rows if row]


def _row(
    number: int, release: str, told: Mapping[str, float], tests: Mapping[str, int]
) -> dict[str, Any]:
    """One round's row; empty where no site tells."""
    if not told:
        return {}
    weights = sum(tests[site] for site in told)
    return {
        "round": number,
        "release": release,
        "accuracy": round(sum(told.values()) / len(told), 4),
        "weighted": round(sum(tests[site] * one for site, one in told.items()) / weights, 4),
    }


def own_accuracies(federation: Federation, id: str, sites: Sequence[SiteData]) -> dict[str, float]:
    """Test accuracy of the own networks of a release, by the names of its sites.

    None where whole networks are generated: there a site has what it has returned last.
    """
    if federation.body is None and not federation.config.has_shared_network:
        return {}
    factory, found = CandidateFactory.open(federation, id), {}
    for site in sites:
        if site.name in factory.sites:
            target, weights = _own_network(factory, site)
            test = torch.from_numpy(site.x_test), torch.from_numpy(site.y_test)
            found[site.name] = loss_and_accuracy(target, weights, *test)[1]
    return found


def _own_network(factory: CandidateFactory, site: SiteData) -> tuple[Target, Tensor]:
    """The network that a site would make of a release that it is part of, as (D,) float32.

    With a body it has as many classes as the site.
    """
    federation, config = factory.federation, factory.federation.config
    x, y = torch.from_numpy(site.x_train), torch.from_numpy(site.y_train)
    rng = steps_stream(config.lineage, NO_ROUND, site.name)
    if federation.body is not None:
        weights = federation.anchor(federation.releases.read(factory.id))
        body = with_classes(federation.body, len(site.classes))
        context = site_context(body, weights, x, y, config.head)
        generated = factory.served(site.name, padded(context[None], federation.target.layout)[0])
        head = adapted_head(body, weights, generated[PRIOR], x, y, config.head)
        made = adapted_network(body, weights, head, x, y, config.head, config.later, rng)
        return body.network, made
    # Of a known site the context is not looked at.
    candidates = factory.served(site.name, torch.zeros(federation.target.layout.size))
    sharing = SharingSite(target=federation.target, x=x, y=y, config=config.shared)
    snapshot = federation.zoo.snapshot()
    last = max(snapshot.records(site=site.name), key=lambda record: record.round)
    returned = torch.from_numpy(snapshot.weights([last]))[0]
    early = config.shared.is_early(factory.id)
    _, start = sharing.start(candidates, None if early else returned)
    recipe = config.shared.own_recipe(len(y), factory.id)
    return federation.target, sharing.own_network(start, recipe, rng)
