"""The regression of a velocity on the devices of this machine."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.flow import FlowConfig, fit_flow
from f2l_fed.flow.velocity_regression import RegressionBatch, VelocityTraining
from tests.support.devices import on_devices
from tests.support.latents import PLAIN, bimodal
from tests.support.small import rng


@on_devices
def test_a_device_fits_the_field_of_the_cpu(device):
    config = FlowConfig(width=32, depth=1, steps=75, lr=5e-3, check_every=25)
    one, other = (
        fit_flow(*bimodal(), PLAIN, config, rng(1), device=place)
        for place in (device, torch.device("cpu"))
    )
    assert one.step == other.step > 0
    assert one.loss == pytest.approx(other.loss, rel=1e-3)
    for mine, known in zip(one.field.parameters(), other.field.parameters(), strict=True):
        assert mine.device == torch.device("cpu")
        torch.testing.assert_close(mine, known, rtol=1e-2, atol=1e-3)


def test_a_step_runs_where_no_number_can_be_read():
    meta = torch.device("meta")
    fit = fit_flow(*bimodal(40), PLAIN, FlowConfig(width=8, depth=1, steps=0), rng(1))
    field = fit.field.requires_grad_(True).to(meta)
    many, known = torch.zeros(16, 2), torch.ones(16)
    batch = RegressionBatch(known, many, many, known, many).to(meta)
    VelocityTraining().descend(field, batch)
    assert all(parameter.grad.is_meta for parameter in field.parameters())
