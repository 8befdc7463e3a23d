"""Dense tensors: the only ones that weights, contexts and examples are taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f2l_fed.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def oddity(tensor: object) -> str:
    """The reason why a value is no plain tensor of real numbers in memory; "" if it is one.

    >>> import torch
    >>> oddity(torch.ones(2)), oddity(torch.ones(2).to_sparse()), oddity(torch.ones(2) + 1j)
    ('', 'a sparse tensor', 'complex numbers')
    """
    # Imported here, since the zoo uses this for files of torch alone.
    import torch

    if not isinstance(tensor, torch.Tensor):
        return type(tensor).__name__
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_meta:
        return "a meta tensor, which has no numbers"
    if tensor.is_quantized:
        return "a quantized tensor"
    return "complex numbers" if tensor.is_complex() else ""


def require_floats(**tensors: Tensor) -> None:
    """Requires plain tensors of floating-point numbers, all of one type.

    Raises:
        UsageError: With the name of the first argument that is anything else.
    """
    kind = None
    for name, tensor in tensors.items():
        found = oddity(tensor)
        kind = kind or (None if found or not tensor.is_floating_point() else tensor.dtype)
        if found or tensor.dtype != kind:
            wanted = f"a dense {kind or 'torch.float32'} tensor"
            raise _unusable(name, wanted, found or tensor.dtype)


def require_finite_rows(rows: int, anchor: Tensor, **tensors: Tensor) -> None:
    """Requires finite floating-point tensors (n, E, D) of one shape and type, with n >= ``rows``.

    Args:
        rows: Least n.
        anchor: (D,), of the same type, finite likewise.
        tensors: The others, at least one, by name.

    Raises:
        UsageError: With the name of the first argument that is anything else.
    """
    require_floats(**tensors, anchor=anchor)
    shape = None
    for name, tensor in tensors.items():
        shape = shape or tensor.shape
        if tensor.dim() != 3 or tensor.shape != shape or len(tensor) < rows:
            wanted = f"(n, E, D) with n >= {rows}, the same for all"
            raise _unusable(name, wanted, tuple(tensor.shape))
        if not all_finite(tensor):
            raise _unusable(name, "finite numbers", "some that are not")
    if anchor.shape != (shape or ())[2:] or not all_finite(anchor):
        raise _unusable("anchor", f"finite, {tuple((shape or ())[2:])}", tuple(anchor.shape))


def all_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite, without a copy of them."""
    if not tensor.numel():
        return True
    least, most = tensor.aminmax()
    return bool(least.isfinite() & most.isfinite())


def require_labels(labels: Tensor, count: int, classes: int = 0) -> None:
    """Requires a label for each of some examples, at least one.

    Args:
        labels: (count,) int64, from 0.
        count: Number of examples.
        classes: The labels are below this; 0 for no bound.

    Raises:
        UsageError: If anything else was given.
    """
    wanted = f"({max(count, 1)},) int64"
    if found := oddity(labels):
        raise _unusable("labels", wanted, found)
    if labels.shape != (count,) or not count or str(labels.dtype) != "torch.int64":
        raise _unusable("labels", wanted, f"{tuple(labels.shape)} {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if classes and not 0 <= low <= high < classes:
        raise _unusable("labels", f"labels from 0 to {classes - 1}", f"{low} to {high}")


def _unusable(name: str, expected: str, got: object) -> UsageError:
    return UsageError("the tensor can't be used", where=name, expected=expected, got=str(got))
