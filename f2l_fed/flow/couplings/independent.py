"""The independent coupling, of flow matching without a transport plan."""

from __future__ import annotations

import torch
from torch import Tensor


def independent(
    starts: Tensor,
    ends: Tensor,  # noqa: ARG001
    context: Tensor,  # noqa: ARG001
    known: Tensor,  # noqa: ARG001
    *,
    batch: int,  # noqa: ARG001
) -> Tensor:
    """Every target keeps the start that was drawn for it; see `Coupling`."""
    return torch.arange(len(starts))
