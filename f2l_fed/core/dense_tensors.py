"""Dense tensors: the only ones that weights, contexts and examples are taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f2l_fed.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def oddity(tensor: Tensor) -> str:
    """The reason why a tensor is no plain array of real numbers in memory; "" if it is one.

    >>> import torch
    >>> oddity(torch.ones(2)), oddity(torch.ones(2).to_sparse()), oddity(torch.ones(2) + 1j)
    ('', 'a sparse tensor', 'complex numbers')
    """
    if tensor.is_nested:
        return "a nested tensor"
    if str(tensor.layout) != "torch.strided":
        return "a sparse tensor"
    if tensor.is_meta:
        return "a meta tensor, which has no numbers"
    if tensor.is_quantized:
        return "a quantized tensor"
    return "complex numbers" if tensor.is_complex() else ""


def require_dense(**tensors: Tensor) -> None:
    """Requires plain arrays of real numbers.

    Raises:
        UsageError: With the name of the first argument that is anything else.
    """
    for name, tensor in tensors.items():
        if found := oddity(tensor):
            raise UsageError(
                "the tensor can't be used",
                where=name,
                expected="a dense tensor of real numbers in memory",
                got=found,
                remedy="Convert it first, for instance with .to_dense().",
            )
