"""Batch normalisation in a target: its running statistics belong to the weights.

The running mean and variance decide a prediction as parameters do, so they are generated, sent
and stored with them. No gradient moves them; they are measured again on the examples that the
network was trained on, and on no others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from f2l_fed.errors import TargetError

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def running_statistics(network: nn.Module, *, where: str) -> dict[str, Tensor]:
    """Means and variances of the batch normalisations of a network's adapted part, by name.

    Those of one whose parameters are frozen, or whose momentum is 0, belong to the frozen part.

    Raises:
        TargetError: If one normalises by the batch even when the network predicts.
    """
    statistics = {}
    for prefix, layer in _normalisations(network):
        if layer.running_mean is None or layer.running_var is None:
            raise TargetError(
                "a prediction would depend on the other inputs of its batch",
                where=where,
                got=f"batch normalisation {prefix[:-1]!r} without running statistics",
                remedy="Leave track_running_stats on.",
            )
        if not _is_frozen(layer):
            statistics[f"{prefix}running_mean"] = layer.running_mean
            statistics[f"{prefix}running_var"] = layer.running_var
    return statistics


def measuring(network: nn.Module, shared: dict[int, Tensor]) -> nn.Module:
    """A copy whose batch normalisations use their batch's statistics, and overwrite theirs.

    Those of the frozen part go on with their own.

    Args:
        network: The network.
        shared: Tensors that the copy shares, as `copy.deepcopy` takes them.
    """
    twin = copy.deepcopy(network, dict[int, Any](shared))
    for _, layer in _normalisations(twin):
        if _is_frozen(layer):
            continue
        layer.train()
        layer.momentum = 1.0
        # The count of batches is of no use here, and calls must leave the copy as it is.
        layer.num_batches_tracked = None
    return twin


def with_valid_variances(
    tensors: Mapping[str, Tensor], statistics: Iterable[str]
) -> dict[str, Tensor]:
    """Named tensors with variances of at least zero; nothing keeps a generated one from falling.

    Args:
        tensors: By name.
        statistics: Names of the running statistics among them.
    """
    variances = [name for name in statistics if name.endswith("running_var")]
    return {**tensors, **{name: tensors[name].clamp(min=0) for name in variances}}


def _is_frozen(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> bool:
    """Whether running statistics stay as they are: with frozen parameters, or without momentum."""
    own = list(layer.parameters())
    frozen = bool(own) and not any(parameter.requires_grad for parameter in own)
    return frozen or layer.momentum == 0


def _normalisations(
    network: nn.Module,
) -> Iterator[tuple[str, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]]:
    for name, module in network.named_modules():
        if isinstance(module, _KINDS):
            yield f"{name}." if name else "", module
