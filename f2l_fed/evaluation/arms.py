"""Arms: the starts that a held-out site could have, and their accuracy at it.

Every arm gets the same sites, the same few examples and the same local steps; only the start
differs. ``generated`` is the start that a site would really have: its own choice, by its own
examples, among the candidates that a server would send. ``gaussian`` is the same with normal noise
around the prior instead of the flow, ``wrong_context`` the prior for the context of another site.
Keys, labels and descriptions of the arms are in `f2l_fed.evaluation.arm_names`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arm_names import (
    ALONE,
    GENERATED,
    LOGISTIC,
    PRIOR,
    PROBE,
    RANDOM,
    SHARED,
    WRONG_CONTEXT,
)
from f2l_fed.evaluation.confidence import Predictions, predictions
from f2l_fed.generator.candidates import FittedRecords, candidates_for_service
from f2l_fed.generator.config import CandidatesConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.adapted_network import adapted_head, class_means_head, site_context
from f2l_fed.local_training.candidate_kinds import GLOBAL_MEAN
from f2l_fed.local_training.config import HeadConfig, ProbeConfig, Recipe, SharedConfig
from f2l_fed.local_training.finetune import STEPS, accuracy_after, finetune
from f2l_fed.local_training.probe import probe_update, support_set
from f2l_fed.local_training.selection import select
from f2l_fed.local_training.shared_network import SharingSite, few_examples, shifted
from f2l_fed.local_training.site_streams import (
    NO_ROUND,
    draws_stream,
    steps_stream,
    support_stream,
)
from f2l_fed.local_training.temperature import temperature_of
from f2l_fed.targets import Target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import class_counts, cut, padded, with_classes
from f2l_fed.targets.layout import WeightLayout

_SOUP = 8

_ALONE = Recipe(steps=300, lr=0.05, momentum=0.9)
"""What a site without a federation would do."""

_PULLED = (GENERATED, PRIOR, LOGISTIC, "class_means", "common_prior", WRONG_CONTEXT)
"""Arms whose start is worth more than what the steps find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSite:
    """One site that no training has seen.

    Args:
        name: Its name, for its random streams.
        train: Examples it fine-tunes on: (n, *input_shape) float32 and (n,) int64.
        test: Examples it is measured on.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def classes(self) -> int:
        """Its number of classes, numbered from 0."""
        return int(torch.cat([self.train[1], self.test[1]]).max()) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRelease:
    """A release as it serves new sites.

    Args:
        lineage: The federation's lineage, for random streams.
        target: The network that is generated; with a body, a head for the most classes.
        generator: The release's generator.
        records: The records that it was fitted on.
        probe: How a site makes its context.
        candidates: What a site may choose its start from.
        body: The body that heads are generated on, for the most classes; None where whole networks
            are.
        head: How heads are solved.
        temperatures: Of the release; see `f2l_fed.local_training.temperature`.
        shared: How a site uses a network that all of them share; None without one.
    """

    lineage: str
    target: Target
    generator: Generator
    records: FittedRecords
    probe: ProbeConfig
    candidates: CandidatesConfig
    body: Body | None = None
    head: HeadConfig = field(default_factory=HeadConfig)
    temperatures: tuple[tuple[int, float], ...] = ()
    shared: SharedConfig | None = None

    def network_of(self, site: HeldOutSite) -> Target:
        """The whole network that a site has in the end."""
        return self.target if self.body is None else with_classes(self.body, site.classes).network

    def pulls(self, site: HeldOutSite) -> dict[str, float]:
        """The pull of the local steps to their start by arm, where it is a solved head."""
        if self.body is None:
            return {}
        return dict.fromkeys(_PULLED, self.head.step_pull / len(site.train[1]))

    def context(self, site: HeldOutSite) -> Tensor:
        """(D,) float32, the probe update of a site from the generator's anchor."""
        x, y = site.train
        support = support_set(y, self.probe.shots, support_stream(self.lineage, site.name))
        anchor = self.generator.prior.anchor
        return probe_update(self.target, anchor, x[support], y[support], self.probe.recipe)

    def candidates_of(
        self,
        site: HeldOutSite,
        context: Tensor,
        expected: Tensor,
        *,
        evaluations: int | None = None,
    ) -> dict[str, Tensor]:
        """The candidates of a site by kind; see `candidates_for_service`.

        Args:
            site: The site.
            context: (D,) float32, its context.
            expected: (D,) float32, the prediction for it.
            evaluations: Of the flow, instead of the generator's own number.
        """
        return candidates_for_service(
            self.generator,
            self.records,
            context,
            expected,
            self.candidates,
            draws_stream(self.lineage, site.name),
            evaluations=evaluations,
        )

    def chosen(
        self,
        site: HeldOutSite,
        context: Tensor,
        expected: Tensor,
        *,
        evaluations: int | None = None,
    ) -> Tensor:
        """(D,) float32, the site's choice among its candidates; arguments as `candidates_of`."""
        candidates = self.candidates_of(site, context, expected, evaluations=evaluations)
        return select(self.target, candidates, *site.train, keep=self.candidates.keep)[1]


def starts(release: ServedRelease, site: HeldOutSite) -> dict[str, Tensor]:
    """(D,) float32, the start of every arm for one held-out site, by the arm's key."""
    if release.body is not None:
        return starts_on_body(release, release.body, site)
    if release.shared is not None:
        return starts_around_shared(release, release.shared, site)
    lineage, generator, records = release.lineage, release.generator, release.records
    context = release.context(site)
    expected = generator.expect(context[None])[0]
    # The name of the random stream decides whose context it is; renaming it changes results.
    draws = generator_for(lineage, site.name, "stranger")
    other = torch.randint(len(records.contexts), (1,), generator=draws)
    return {
        **untrained(release, site),
        "global_mean": generator.mean,
        "nearest": records.nearest(context, 1)[0],
        "soup": records.nearest(context, _SOUP).mean(0),
        PROBE: generator.prior.anchor + context,
        PRIOR: expected,
        WRONG_CONTEXT: generator.expect(records.contexts[other])[0],
        "gaussian": release.chosen(site, context, expected, evaluations=0),
        GENERATED: release.chosen(site, context, expected),
    }


def starts_on_body(release: ServedRelease, body: Body, site: HeldOutSite) -> dict[str, Tensor]:
    """`starts` where heads are generated: whole networks, most of them with the release's body."""
    return {**untrained(release, site), **starts_from_heads(release, body, site)}


def starts_from_heads(release: ServedRelease, body: Body, site: HeldOutSite) -> dict[str, Tensor]:
    """(D,) float32, the starts on the release's body under heads for a site's own classes."""
    lineage, generator, records, config = (
        release.lineage,
        release.generator,
        release.records,
        release.head,
    )
    assert generator.bodies is not None
    weights, (x, y) = generator.bodies.own, site.train
    largest, body = body.head.layout, with_classes(body, site.classes)
    own = site_context(body, weights, x, y, config)
    context = padded(own[None], largest)[0]
    # Where all sites have a privacy budget, there are no records of heads.
    near, wrong = generator.mean[None], torch.zeros_like(context)
    if len(records.contexts):
        near = records.nearest(context, _SOUP)
        draws = generator_for(lineage, site.name, "stranger")
        wrong = _stranger(records.contexts, largest, site.classes, draws)

    def for_site(head: Tensor) -> Tensor:
        return cut(head, largest, site.classes)

    expected = for_site(generator.expect(context[None])[0])
    heads = {
        "global_mean": for_site(generator.mean),
        "nearest": for_site(near[0]),
        "soup": for_site(near.mean(0)),
        "class_means": class_means_head(body, weights, x, y),
        LOGISTIC: own,
        "common_prior": for_site(generator.prior.without_rows()(context[None])[0]),
        PRIOR: expected,
        WRONG_CONTEXT: for_site(generator.expect(wrong[None])[0]),
        GENERATED: adapted_head(body, weights, expected, x, y, config),
    }
    return {arm: body.join(weights, head) for arm, head in heads.items()}


def _stranger(
    contexts: Tensor, largest: WeightLayout, classes: int, rng: torch.Generator
) -> Tensor:
    """(H,) float32, the context of another site, where there is one with as many classes."""
    rich = contexts[class_counts(contexts, largest) >= classes]
    among = rich if len(rich) else contexts
    return among[torch.randint(len(among), (), generator=rng)]


def starts_around_shared(
    release: ServedRelease, config: SharedConfig, site: HeldOutSite
) -> dict[str, Tensor]:
    """`starts` where all sites share a network: all but its bare mean with the site's label mix."""
    lineage, generator, records = release.lineage, release.generator, release.records
    x, y = site.train
    sharing = SharingSite(target=release.target, x=x, y=y, config=config)
    most = release.probe.shots * release.target.classes
    few = few_examples(y, most, support_stream(lineage, site.name))
    context = sharing.context(generator.prior.anchor, few, release.probe.recipe)
    expected = generator.expect(context[None])[0]
    draws = generator_for(lineage, site.name, "stranger")
    other = torch.randint(len(records.contexts), (1,), generator=draws)
    near = records.nearest(context, _SOUP)
    candidates = {PRIOR: expected, GLOBAL_MEAN: generator.mean}
    mixed = {
        "nearest": near[0],
        "soup": near.mean(0),
        SHARED: generator.mean,
        PRIOR: expected,
        WRONG_CONTEXT: generator.expect(records.contexts[other])[0],
    }
    return {
        **untrained(release, site),
        "global_mean": generator.mean,
        **{arm: shifted(release.target, start, sharing.shift) for arm, start in mixed.items()},
        GENERATED: sharing.start(candidates, None)[1],
    }


def untrained(release: ServedRelease, site: HeldOutSite) -> dict[str, Tensor]:
    """(D,) float32, the starts of a site that no federation helps, by the arm's key."""
    network = release.network_of(site)
    random = network.initialise(generator_for(release.lineage, site.name, "random"))
    rng = generator_for(release.lineage, site.name, "alone")
    return {RANDOM: random, ALONE: finetune(network, random, *site.train, _ALONE, rng)}


def confidence(
    release: ServedRelease, starts_by_arm: Mapping[str, Tensor], site: HeldOutSite
) -> dict[str, Predictions]:
    """The confidence of every arm's start at a site; the served one has its temperature."""
    x, y = site.test
    temperature = temperature_of(release.temperatures, site.train[1])
    network = release.network_of(site)
    return {
        arm: predictions(network.logits(start, x) / (temperature if arm == GENERATED else 1.0), y)
        for arm, start in starts_by_arm.items()
    }


def measure(
    target: Target,
    starts_by_arm: Mapping[str, Tensor],
    site: HeldOutSite,
    recipe: Recipe,
    lineage: str,
    steps: Sequence[int] = STEPS,
    *,
    pulls: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, list[float]]:
    """Test accuracy of every arm after each number of local steps, at one site.

    Args:
        target: The whole network.
        starts_by_arm: (D,) float32, the start of each arm.
        site: The site.
        recipe: The steps.
        lineage: For random streams.
        steps: Numbers of steps after which to measure.
        pulls: Strength of the steps' pull to their start by arm; see `ServedRelease.pulls`.
    """
    return {
        arm: accuracy_after(
            target,
            start,
            site.train,
            site.test,
            recipe,
            steps_stream(lineage, NO_ROUND, site.name),
            steps,
            pull=pulls.get(arm, 0.0),
        )
        for arm, start in starts_by_arm.items()
    }
