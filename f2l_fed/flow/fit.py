"""Conditional flow matching: regress the velocity on straight lines from source to data.

Reference:
    Lipman et al.: Flow matching for generative modeling, arXiv 2210.02747, equation 23 with
    σ_min = 0. Ho, Salimans: Classifier-free diffusion guidance, arXiv 2207.12598.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.latent import LatentShape
from f2l_fed.flow.field import VelocityField
from f2l_fed.flow.source import SOURCES, draw
from f2l_fed.rules import choice, positive, require, share


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """How the velocity field is built and fitted.

    Args:
        source: Where the flow starts, "prior" or "gaussian".
        width: Hidden units.
        depth: Blocks.
        steps: Largest number of gradient steps.
        batch: Examples a step.
        lr: Peak learning rate of AdamW; falls to zero along a cosine.
        weight_decay: Of AdamW.
        dropout: Share of examples whose context is withheld.
        held_out: Share of records kept aside to choose the best weights by.
        check_every: Steps between looks at the records kept aside.
        patience: Looks without an improvement after which the fit ends.
    """

    source: str = "prior"
    width: int = 128
    depth: int = 2
    steps: int = 600
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    held_out: float = 0.15
    check_every: int = 50
    patience: int = 5

    def __post_init__(self) -> None:
        choice(self, "source", SOURCES)
        require(self.width >= 2, self, "width", ">= 2")
        positive(self, "depth", "batch", "lr", "check_every", "patience")
        require(self.steps >= 0, self, "steps", ">= 0")
        require(self.weight_decay >= 0, self, "weight_decay", ">= 0")
        share(self, "dropout", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFit:
    """A fitted field.

    Args:
        field: With the weights that were best on the records kept aside.
        loss: Its mean squared velocity error on them, per coordinate.
        normal_loss: That of the velocity which is exact for normal targets, where the field starts.
        step: Gradient step at which these weights were reached; 0 if none was better than that.
    """

    field: VelocityField
    loss: float
    normal_loss: float
    step: int


def fit_flow(
    targets: Tensor,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    config: FlowConfig,
    rng: torch.Generator,
) -> FlowFit:
    """Fits the field that carries the source to the targets.

    Args:
        targets: (n, k) float32, latents of trained networks, one per site.
        expected: (n, k) float32, what the prior predicts for each site without its record: the
            context, and the centre of the source "prior".
        spread: (k,) float32, width of that source.
        shape: Layout of a latent.
        config: See `FlowConfig`.
        rng: Draws everything random, the initial weights too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        field = VelocityField(shape, spread, config.source, width=config.width, depth=config.depth)
    order = torch.randperm(len(targets), generator=rng)
    kept = min(max(1, round(config.held_out * len(targets))), len(targets) - 1)
    # The same noise and times at every look, so that looks differ by the weights alone.
    check = _pairs(
        order[:kept].repeat_interleave(16), targets, expected, spread, shape, config, rng
    )
    train = order[kept:]
    optimiser = torch.optim.AdamW(
        field.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps))
    normal = best = _loss(field, check)
    best_step, best_state = 0, copy.deepcopy(field.state_dict())
    for step in range(1, config.steps + 1):
        picks = train[torch.randint(len(train), (config.batch,), generator=rng)]
        batch = _pairs(picks, targets, expected, spread, shape, config, rng)
        optimiser.zero_grad()
        _error(field, batch).backward()
        optimiser.step()
        schedule.step()
        if step % config.check_every == 0 or step == config.steps:
            loss = _loss(field, check)
            if loss < best:
                best, best_step = loss, step
                best_state = copy.deepcopy(field.state_dict())
            elif step >= best_step + config.patience * config.check_every:
                break
    field.load_state_dict(best_state)
    return FlowFit(field=field.requires_grad_(False), loss=best, normal_loss=normal, step=best_step)


@dataclass(frozen=True, slots=True)
class _Batch:
    t: Tensor
    x: Tensor
    context: Tensor
    known: Tensor
    velocity: Tensor


def _pairs(
    picks: Tensor,
    targets: Tensor,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    config: FlowConfig,
    rng: torch.Generator,
) -> _Batch:
    start = draw(config.source, expected[picks], spread, shape, rng)
    end = targets[picks]
    t = torch.rand(len(picks), generator=rng)
    known = (torch.rand(len(picks), generator=rng) >= config.dropout).float()
    return _Batch(t, torch.lerp(start, end, t[:, None]), expected[picks], known, end - start)


def _error(field: VelocityField, batch: _Batch) -> Tensor:
    error: Tensor = field(batch.t, batch.x, batch.context, batch.known) - batch.velocity
    return error.square().mean()


@torch.no_grad()
def _loss(field: VelocityField, batch: _Batch) -> float:
    return float(_error(field, batch))
