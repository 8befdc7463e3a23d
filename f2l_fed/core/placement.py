"""The placement of tensors on a device.

Random numbers are drawn on the CPU and moved, so that a seed means the same network on every
device, up to rounding. What is stored or sent away is on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

T = TypeVar("T")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the CPU without waiting for what the device is busy with."""
    if tensor.device == CPU and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def placed(value: T, device: torch.device) -> T:
    """A value with all of its tensors on a device, and that for the device that it names.

    Args:
        value: A tensor, a network, or a dataclass, tuple or mapping with such. It is not changed;
            networks that share tensors share the moved ones.
        device: The device.
    """
    made: T = _placed(value, device, {})
    return made


def _placed(value: Any, device: torch.device, known: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, torch.device):
        return device
    if isinstance(value, nn.Module):
        return _network(value, device, known)
    if isinstance(value, Mapping):
        return {key: _placed(part, device, known) for key, part in value.items()}
    if type(value) is tuple:
        return tuple(_placed(part, device, known) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        there = _placed(parts, device, known)
        same = all(there[name] is part for name, part in parts.items())
        return value if same else replace(value, **there)
    return value


def _network(network: nn.Module, device: torch.device, known: dict[int, Any]) -> nn.Module:
    """A network whose tensors are moved; ``known`` are those moved before, by id."""
    tensors = (*network.parameters(), *network.buffers())
    if all(tensor.device == device for tensor in tensors):
        return network
    for tensor in tensors:
        there = tensor.detach().to(device)
        if isinstance(tensor, nn.Parameter):
            there = nn.Parameter(there, tensor.requires_grad)
        known.setdefault(id(tensor), there)
    return copy.deepcopy(network, known)
