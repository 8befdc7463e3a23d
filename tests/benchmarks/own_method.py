"""The method itself in one process: body, pairs of heads and prior by the product's own functions.

What differs from a federation is that no message is sent, and that heads are made once, in the last
round, since nothing before depends on them as long as no site is left out.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import (
    HeldOutSite,
    ServedRelease,
    confidence,
    measure,
    starts_on_body,
)
from f2l_fed.evaluation.baselines.baseline import NUMBER_BYTES, CommonWork
from f2l_fed.evaluation.confidence import Predictions
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.generator import Bodies
from f2l_fed.generator.residual_filter import left_out_sites
from f2l_fed.local_training.adapted_network import head_pairs
from f2l_fed.local_training.episodic import train_body
from f2l_fed.local_training.probe import anchor, first_anchor
from f2l_fed.local_training.temperature import fitted_temperature, left_out_losses
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.head_rows import padded, with_classes
from server.federation.body_updates import BodyUpdate
from server.generator.next_body import next_body


def trained_body(work: CommonWork, config: FederationConfig) -> torch.Tensor:
    """(B,) float32, the body that the heads of the last round are made on."""
    first = body = first_anchor(work.network, work.body, work.lineage)
    for number in range(1, work.rounds):
        updates = [
            BodyUpdate(
                site=site.name,
                round=number,
                body=train_body(
                    work.body,
                    body,
                    site.x,
                    site.y,
                    work.episodes,
                    work.steps(number),
                    generator_for(work.lineage, number, site.name, "body"),
                ),
            )
            for site in work.sites
        ]
        body = next_body(body, updates, config.aggregate, first=first)
    return body


def release_on(
    work: CommonWork, config: FederationConfig, body: torch.Tensor, shots: int
) -> ServedRelease:
    """A release on a body, whose contexts are heads on so many examples per class."""
    pairs = [
        head_pairs(
            with_classes(work.body, len(site.y.unique())),
            body,
            site.x,
            site.y,
            work.head,
            work.episodes,
            shots,
            lambda pair, name=site.name: generator_for(work.lineage, name, "probe", pair),
        )
        for site in work.sites
    ]
    largest = work.body.head.layout
    contexts = torch.stack([padded(one.few, largest) for one in pairs])
    weights = torch.stack([padded(one.all, largest) for one in pairs])
    symmetry = OutputSymmetry.of(work.body.head, enabled=True)
    left_out = left_out_sites(contexts, weights, symmetry)
    kept = [number for number in range(len(pairs)) if number not in left_out]
    contexts, weights = contexts[kept], weights[kept]
    fit = fit_generator(
        contexts,
        weights,
        work.body.head,
        symmetry,
        # No start on a body is drawn by the flow.
        replace(config.generator, flow=replace(config.flow, steps=1)),
        generator_for(work.lineage, "retrain"),
        anchor=anchor(work.body.head, work.lineage),
    )
    numbers = [
        left_out_losses(
            work.body,
            body,
            expected[0],
            work.sites[number].x,
            work.sites[number].y,
            work.head,
            shots,
            generator_for(work.lineage, work.sites[number].name, "probe", 0),
        )
        for number, expected in zip(kept, fit.held_out, strict=True)
    ]
    temperature = fitted_temperature(numbers)
    return ServedRelease(
        lineage=work.lineage,
        target=work.body.head,
        generator=replace(fit.generator, bodies=Bodies(own=body, next=body)),
        records=FittedRecords(contexts=contexts.flatten(0, 1), weights=weights.flatten(0, 1)),
        probe=replace(config.probe, shots=shots),
        candidates=config.candidates,
        body=work.body,
        head=work.head,
        temperatures=() if temperature is None else ((shots, temperature),),
    )


def curves_of_release(
    work: CommonWork, release: ServedRelease, site: HeldOutSite
) -> tuple[dict[str, list[float]], dict[str, Predictions]]:
    """All arms on the body at one site: test accuracy after local steps, confidence before."""
    starts = starts_on_body(release, work.body, site)
    pulls = release.pulls(site)
    found = measure(release.network_of(site), starts, site, work.local, work.lineage, pulls=pulls)
    return found, confidence(release, starts, site)


def cost_of_method(work: CommonWork) -> dict[str, int]:
    """Bytes of a site in a round, up and down, and its gradient steps in all rounds.

    A site sends a body and its pairs of heads. It receives the body to train and, to make a network
    of its own, that of the release with the head that was generated for it.
    """
    body, head = work.body.layout.size, work.body.head.layout.size
    return {
        "bytes_up": NUMBER_BYTES * (body + 2 * work.head.pairs * head),
        "bytes_down": NUMBER_BYTES * (2 * body + head),
        "local_steps": sum(work.steps(number) for number in range(1, work.rounds + 1)),
    }
