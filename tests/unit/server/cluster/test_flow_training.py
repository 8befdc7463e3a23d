"""The flow on Ray Train: what needs no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch

from f2l_fed.codec import LatentShape
from f2l_fed.config import RayConfig
from f2l_fed.flow import FlowConfig, FlowFit, fit_flow
from server.cluster import flow_training
from server.cluster.flow_training import TrainedFlow
from tests.support.latents import PLAIN, bimodal
from tests.support.small import rng

SHAPE = LatentShape(common=4, classes=0, width=0)
CONFIG = FlowConfig(steps=200, width=16, depth=1, check_every=10)


def normal() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = rng(0)
    expected = torch.randn(40, SHAPE.size, generator=draws)
    return expected + torch.randn(40, SHAPE.size, generator=draws), expected, torch.ones(SHAPE.size)


def test_where_the_start_wins_no_worker_is_started_and_the_fit_is_the_same(tmp_path: Path):
    fits, ends = list[FlowFit](), list[torch.Tensor]()
    for fit in (fit_flow, TrainedFlow(folder=tmp_path / "t", config=RayConfig(train_workers=2))):
        draws = rng(1)
        fits.append(fit(*normal(), SHAPE, CONFIG, draws))
        ends.append(draws.get_state())
    here, there = fits
    assert not ray.is_initialized()
    assert not (tmp_path / "t").exists()
    assert (there.step, there.loss, there.speed) == (here.step, here.loss, here.speed)
    assert there.step == 0
    assert torch.equal(*ends)


def test_where_it_does_not_the_workers_begin_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[torch.Tensor] = []

    class Given(Exception):
        pass

    def save(tensors: dict[str, torch.Tensor], _: Path) -> None:
        given.append(tensors["rng"])
        raise Given

    monkeypatch.setattr(flow_training, "save_file", save)
    draws = rng(1)
    begun = draws.get_state()
    flow = TrainedFlow(folder=tmp_path / "t", config=RayConfig(train_workers=2))
    with pytest.raises(Given):
        flow(*bimodal(), PLAIN, FlowConfig(width=32, depth=1, lr=5e-3), draws)
    assert torch.equal(given[0], begun)
