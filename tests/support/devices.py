"""The devices of this machine, and a count of the numbers that are read from tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def devices() -> list[torch.device]:
    """The CPU, and the GPU where there is one."""
    found = [torch.device("cpu")]
    return [*found, torch.device("cuda", 0)] if torch.cuda.is_available() else found


on_devices = pytest.mark.parametrize("device", devices(), ids=str)
"""Runs a test on all devices of this machine."""

_READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
"""Operations for which a GPU is waited for."""


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor within the block."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in _READS
        return func(*args, **(kwargs or {}))
