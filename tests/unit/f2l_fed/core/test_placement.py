"""All tensors of a value move together, and the value stays; another device stands in for a GPU."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import torch
from torch import nn

from f2l_fed.core.placement import CPU, moved, placed
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.target import Target
from tests.support.devices import on_devices
from tests.support.small import small_generator

META = torch.device("meta")


def tensors_in(value):
    """All tensors of a value, wherever they are in it."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, (tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return [tensor for part in parts for tensor in tensors_in(part)]
    if is_dataclass(value) and not isinstance(value, type):
        return [t for field in fields(value) for t in tensors_in(getattr(value, field.name))]
    return []


def test_every_tensor_of_a_generator_moves_and_the_generator_stays():
    generator = small_generator()
    there = placed(generator, META)
    assert len(tensors_in(there)) == len(tensors_in(generator)) > 20
    assert all(tensor.is_meta for tensor in tensors_in(there))
    assert all(tensor.device == CPU for tensor in tensors_in(generator))
    assert there.device == META
    assert there.config == generator.config


def test_what_is_there_already_is_not_copied():
    generator, target = small_generator(), build_target("mlp", (4,), 3)
    assert placed(generator, CPU) is generator
    assert generator.to(CPU) is generator
    assert target.to(CPU) is target
    assert Body.of(target).to(CPU).template is not None


class _Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(self.fixed(x)))


def test_networks_that_share_a_frozen_part_share_the_moved_one():
    body = Body.of(Target.of("frozen", _Frozen, (4,), 3))
    assert body.trainee.fixed.weight is body.network.template.fixed.weight
    there = placed(body, META)
    networks = (there.template, there.trainee, there.network.template, there.network.trainee)
    assert len({id(network.fixed.weight) for network in networks}) == 1
    assert not there.template.fixed.weight.requires_grad
    assert all(network.fixed.weight.is_meta for network in networks)
    assert (there.network.device, there.head.device) == (META, META)
    assert body.network.device == CPU


@on_devices
def test_a_tensor_arrives_as_it_was(device):
    tensor = torch.randn(5, 3)[:, ::2]
    assert moved(tensor, device).device == device
    assert torch.equal(moved(tensor, device).cpu(), tensor)
