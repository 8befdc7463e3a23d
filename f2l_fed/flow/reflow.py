"""Rectification: a second fit on couples that the flow itself has made, for few evaluations.

Research only: no retraining uses it.

The fitted field carries starts to their ends in many small steps. Lines between these couples
cross far less than those between independent ones, so that a field refitted on them runs nearly
straight and needs few evaluations for the same ends.

Reference:
    Liu et al.: Flow straight and fast, arXiv 2209.03003, sections 2.2 and 3. Lee et al.: Improving
    the training of rectified flows, arXiv 2405.20320: one round is enough.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.flow_matching import FlowFit
from f2l_fed.flow.solvers.registry import SOLVERS
from f2l_fed.flow.solvers.solve import solve
from f2l_fed.flow.solvers.solver import Velocity
from f2l_fed.flow.sources.draw import draw
from f2l_fed.flow.sources.source import Initialisations
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.flow.velocity_regression import RegressionBatch, regress, validation_split

_FEW = (1, 2, 4)
"""Numbers of evaluations that rectification is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflowFit(FlowFit):
    """A rectified field; the fields of `FlowFit` are about the fit before.

    Args:
        few_error: Mean squared distance per coordinate from where the first field goes in many
            evaluations, after 1, 2 and 4 evaluations of the best solver for each; the mean of the
            three, on validation contexts. The weights are chosen by it.
        former_few_error: The same of the first field, which is kept unless this one is better.
        curvature: Of this field's paths; see the function `curvature`.
        former_curvature: Of the first field's paths.
        reflow_step: Gradient step at which these weights were reached; 0 for those of the first.
    """

    few_error: float
    former_few_error: float
    curvature: float
    former_curvature: float
    reflow_step: int


@dataclass(frozen=True, slots=True)
class _Couples:
    """Starts and the ends that a field carries them to."""

    start: Tensor
    end: Tensor
    context: Tensor
    known: Tensor

    def batch(self, picks: Tensor, t: Tensor) -> RegressionBatch:
        start, end = self.start[picks], self.end[picks]
        x = torch.lerp(start, end, t[:, None])
        return RegressionBatch(t, x, self.context[picks], self.known[picks], end - start)

    def few_error(self, field: VelocityField) -> float:
        """See `ReflowFit`."""
        velocity = field.conditioned_on(self.context, self.known)

        def distance(solver: str, few: int) -> float:
            end = solve(velocity, self.start, solver=solver, evaluations=few)
            return float((end - self.end).square().mean())

        def least(few: int) -> float:
            return min(
                distance(name, few) for name, solver in SOLVERS.items() if solver.evaluations <= few
            )

        return sum(least(few) for few in _FEW) / len(_FEW)


def reflow(
    fit: FlowFit,
    expected: Tensor,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
    initial: Initialisations | None = None,
    couples: int = 4096,
    evaluations: int = 64,
) -> ReflowFit:
    """Rectifies a flow, and keeps the result only if few evaluations come closer with it.

    Args:
        fit: From `fit_flow`.
        expected: (n, k) float32, contexts to simulate, such as those of the fit.
        config: Steps, batch, learning rate, dropout and validation share of this second fit.
        rng: Draws everything random.
        group: As for `fit_flow`.
        initial: As for `fit_flow`.
        couples: Number of couples to simulate.
        evaluations: Midpoint evaluations for each of them.
    """
    teacher = fit.field

    @torch.no_grad()
    def simulate(picks: Tensor) -> _Couples:
        context = expected[picks]
        start = draw(teacher.source, context, teacher.spread, teacher.shape, rng, initial=initial)
        known = (torch.rand(len(picks), generator=rng) >= config.dropout).float()
        end = solve(
            teacher.conditioned_on(context, known),
            start,
            solver="midpoint",
            evaluations=evaluations,
        )
        return _Couples(start, end, context, known)

    validation, training = validation_split(len(expected), config.held_out, rng, group=group)
    check = simulate(validation.repeat(1 + couples // 8 // len(validation)))
    train = simulate(training.repeat(1 + couples // len(training)))
    field = copy.deepcopy(teacher).requires_grad_(True)

    def batch() -> RegressionBatch:
        picks = torch.randint(len(train.start), (config.batch,), generator=rng)
        return train.batch(picks, torch.rand(config.batch, generator=rng))

    course = regress(field, batch, lambda: check.few_error(field), config)
    return ReflowFit(
        field=field,
        loss=fit.loss,
        normal_loss=fit.normal_loss,
        step=fit.step,
        speed=fit.speed,
        error=fit.error,
        few_error=course.best,
        former_few_error=course.first,
        curvature=curvature(field.conditioned_on(check.context, check.known), check.start),
        former_curvature=curvature(teacher.conditioned_on(check.context, check.known), check.start),
        reflow_step=course.step,
    )


@torch.no_grad()
def curvature(velocity: Velocity, x: Tensor, *, evaluations: int = 32) -> float:
    """Mean squared difference between the velocity and its mean along the path, per coordinate.

    It is 0 where all paths from ``x`` are straight and run at constant speed.

    >>> curvature(lambda t, x: torch.ones_like(x), torch.zeros(1, 2))
    0.0
    """
    speeds = []

    def recorded(t: Tensor, x: Tensor) -> Tensor:
        speeds.append(velocity(t, x))
        return speeds[-1]

    solve(recorded, x, solver="euler", evaluations=evaluations)
    return float(torch.stack(speeds).var(0, correction=0).mean())
