"""The frozen part of a network: tensors that decide its predictions and are never generated.

Parameters that take no gradient, buffers, and the batch normalisations among them stay at every
site as they were installed. Two sites may only share weights on the same frozen part, so its digest
belongs to the layout of the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import sha256

import torch
from torch import Tensor, nn

from f2l_fed.core.dense_tensors import oddity
from f2l_fed.errors import TargetError


def frozen_tensors(
    network: nn.Module, adapted: Collection[str], *, where: str
) -> dict[str, Tensor]:
    """Parameters and buffers of a network that are not adapted, by name.

    The number of batches that a batch normalisation has seen decides nothing and is left out.

    Raises:
        TargetError: If one is no plain tensor.
    """
    found = {
        name: tensor
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
        if name not in adapted and not name.endswith("num_batches_tracked")
    }
    for name, tensor in found.items():
        if odd := oddity(tensor):
            raise TargetError("a frozen tensor is not plain", where=where, got=f"{name}: {odd}")
    return found


def tensors_digest(tensors: Mapping[str, Tensor], description: str = "") -> str:
    """SHA-256 of named tensors, their types and shapes, and a description; 64 hexadecimal digits.

    >>> tensors_digest({"w": torch.zeros(2)}) == tensors_digest({"w": torch.ones(2)})
    False
    """
    digest = sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def kept_in_copies(network: nn.Module, adapted: Collection[str]) -> dict[int, Tensor]:
    """A memory for `copy.deepcopy` by which copies of a network share its frozen tensors."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return {id(tensor): tensor for name, tensor in tensors if name not in adapted}
