"""Attribution of a prediction of the prior to sites: one vector for each of them.

The prior is linear in what the sites have sent. In every release that made it, a prediction is a
weighted sum of updates, and the weights depend on the probes alone
(`f2l_fed.prior.ridge.RidgeFit`). So a prediction is the anchor, plus the site's own probe, plus
what the updates of each site add, and nothing else: these parts are computed, not estimated. An
update counts for the site that sent it, though it began where earlier updates of others had led.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.errors import UsageError
from f2l_fed.prior.config import PriorConfig
from f2l_fed.prior.linear_prior import Expectation, PriorFit, fit_prior, refine_prior
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementStep:
    """The refinement of the prior by one release.

    Args:
        sites: Names of its n sites.
        contexts: (n, E, D) float32, their probes.
        weights: (n, E, D) float32, their networks.
        starts: (n, E, D) float32, where the updates that the regression predicts began.
        rate: Factor on its prediction.
        fit: The regression.
    """

    sites: tuple[str, ...]
    contexts: Tensor
    weights: Tensor
    starts: Tensor
    rate: float
    fit: PriorFit

    def added(self, context: Tensor) -> dict[str, Tensor]:
        """By site, (D,) float64, what its updates add to the prediction for a (D,) context."""
        parts = self.fit.prior.symmetry.split(context[None])
        common = self.fit.common.weights(parts.common)[0]
        if self.fit.rows is None:
            return self._by_site(common, common.new_zeros(0, 0))
        factor = self.fit.prior.gate(parts.rows, self.fit.rows.map(parts.rows))
        return self._by_site(common, factor * self.fit.rows.weights(parts.rows[0]))

    def added_without(self, site: str, episode: int) -> dict[str, Tensor]:
        """The same for one of a site's own records, predicted without all of them."""
        index, episodes = self.sites.index(site), self.contexts.shape[1]
        group = slice(index * episodes, (index + 1) * episodes)
        common = self.fit.common.held_out_weights(group)[episode]
        if self.fit.rows is None:
            return self._by_site(common, common.new_zeros(0, 0))
        classes = self.fit.prior.symmetry.classes
        group = slice(group.start * classes, group.stop * classes)
        rows = self.fit.rows.held_out_weights(group).unflatten(0, (episodes, classes))
        return self._by_site(common, self.fit.factors[index, episode] * rows[episode])

    def _by_site(self, common: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """From the weights (nE,) of the common parts and (K, nEK) of the rows."""
        symmetry, (n, episodes, _) = self.fit.prior.symmetry, self.weights.shape
        updates = symmetry.split((self.weights - self.starts).flatten(0, 1).double())
        classes, width = updates.rows.shape[1:]
        sent = updates.rows.reshape(n, episodes * classes, width)
        added = IsotypicParts(
            torch.einsum("ne,nec->nc", common.view(n, -1), updates.common.unflatten(0, (n, -1))),
            torch.einsum("knj,njr->nkr", rows.reshape(classes, n, episodes * classes), sent),
        )
        return dict(zip(self.sites, self.rate * symmetry.join(added), strict=True))


def refinement_step_of(
    sites: Sequence[str],
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    config: PriorConfig,
    *,
    anchor: Tensor,
    before: Expectation | None = None,
) -> RefinementStep:
    """Fits the prior of a release again, as `f2l_fed.generator.fit.fit_generator` did.

    Args:
        sites: Names of n sites.
        contexts: (n, E, D) float32, their probes.
        weights: (n, E, D) float32, their networks.
        symmetry: Coordinates of the prior.
        config: How far it follows updates.
        anchor: (D,) float32, where the probes start.
        before: What it refined, if it was not fitted from scratch.
    """
    if before is None:
        starts, rate = anchor + contexts, 1.0
        gated = config.gate and symmetry.rows_alone
        fit = fit_prior(contexts, weights, symmetry, anchor, gated=gated)
    else:
        starts, rate = before.expected, config.rate
        fit = refine_prior(before.prior, contexts, starts, weights, config)
    return RefinementStep(
        sites=tuple(sites), contexts=contexts, weights=weights, starts=starts, rate=rate, fit=fit
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """A prediction as a sum.

    Args:
        anchor: (D,) float32, where the probes start.
        probe: (D,) float32, the site's own update from there.
        learned: (D,) float64 by site, what the updates of each add.
    """

    anchor: Tensor
    probe: Tensor
    learned: Mapping[str, Tensor]

    def network(self) -> Tensor:
        """(D,) float32, the prediction."""
        learned = torch.stack(list(self.learned.values())).sum(0)
        return (self.anchor.double() + self.probe + learned).float()


def attribution_of(steps: Sequence[RefinementStep], context: Tensor) -> Attribution:
    """The attribution of what the prior predicts for a new site.

    Args:
        steps: All releases that made the prior, oldest first.
        context: (D,) float32, the site's probe.
    """
    return _attribution(steps, context, [step.added(context) for step in steps])


def held_out_attribution(
    steps: Sequence[RefinementStep], site: str, episode: int = 0
) -> Attribution:
    """The attribution of a prediction for a site of the newest release without its own records.

    Such a prediction refines the one that the release before made in the same way. A release that
    did not have the site answered its probe like that of a new one, and so did all before it.

    Args:
        steps: All releases that made the prior, oldest first.
        site: Its name.
        episode: Which of its records.

    Raises:
        UsageError: If the newest release has no records of the site.
    """
    if site not in steps[-1].sites:
        raise UsageError("the release has no records of this site", got=site)
    known, added = True, []
    for step in reversed(steps):
        known = known and site in step.sites
        if known:
            context = step.contexts[step.sites.index(site), episode]
        added.append(step.added_without(site, episode) if known else step.added(context))
    return _attribution(steps, context, added)


def _attribution(
    steps: Sequence[RefinementStep], context: Tensor, added: Sequence[Mapping[str, Tensor]]
) -> Attribution:
    learned: dict[str, Tensor] = {}
    for by_site in added:
        for site, vector in by_site.items():
            learned[site] = learned[site] + vector if site in learned else vector
    return Attribution(anchor=steps[0].fit.prior.anchor, probe=context, learned=learned)
