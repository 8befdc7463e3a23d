"""Names of tensors that belong to a part of a whole."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def above(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's tensors under the names that the whole gives them."""
    return {prefix + name: value for name, value in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `above`: one part's tensors, from among the whole's."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
