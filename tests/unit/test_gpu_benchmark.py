"""The benchmark of devices: it runs, and a batch of sites is what they are one by one."""

from __future__ import annotations

from dataclasses import replace

import torch

from f2l_fed.local_training.finetune import finetune
from f2l_fed.targets import build_target
from tests.benchmarks import gpu
from tests.support.devices import on_devices
from tests.support.small import rng


@on_devices
def test_a_batch_of_sites_gets_the_networks_of_each(device):
    target = build_target("cnn-xs", (1, 12, 12), 3).to(device)
    draws = rng(1)
    weights = torch.stack([target.initialise(draws) for _ in range(4)]).to(device)
    x = torch.rand(4, 20, 1, 12, 12, generator=draws).to(device)
    y = torch.randint(3, (4, 20), generator=draws).to(device)
    together = gpu.batched_steps(target, weights, x, y)
    for site in range(4):
        alone = finetune(target, weights[site], x[site], y[site], gpu.RECIPE, draws)
        torch.testing.assert_close(together[site], alone, rtol=1e-3, atol=1e-4)


@on_devices
def test_every_part_reaches_a_share_of_the_device(device):
    tiny = replace(gpu.QUICK, matrix=64, batch=16, prior=(20, 300), block=100, draws=8, sites=8)
    rows = gpu.measured(device, replace(tiny, apart=2, fitted=20, repeats=1))
    assert len(rows) == 5
    assert all(row["ms"] > 0 and row["share"] > 0 for row in rows)
