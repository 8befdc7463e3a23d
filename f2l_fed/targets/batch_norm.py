"""Batch normalisation in a target: its running statistics belong to the weights.

The running mean and variance decide a prediction as parameters do, so they are generated, sent
and stored with them. No gradient moves them; they are measured again on the examples that the
network was trained on, and on no others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from f2l_fed.errors import TargetError

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def running_statistics(network: nn.Module, *, where: str) -> dict[str, Tensor]:
    """Means and variances of a network's batch normalisations, by name.

    Raises:
        TargetError: If the network has other state that is not a parameter, or normalises by the
            batch even when it predicts.
    """
    statistics = {}
    known = set()
    for prefix, layer in _normalisations(network):
        if layer.running_mean is None or layer.running_var is None:
            raise TargetError(
                "a prediction would depend on the other inputs of its batch",
                where=where,
                got=f"batch normalisation {prefix[:-1]!r} without running statistics",
                remedy="Leave track_running_stats on.",
            )
        statistics[f"{prefix}running_mean"] = layer.running_mean
        statistics[f"{prefix}running_var"] = layer.running_var
        known.add(f"{prefix}num_batches_tracked")
    known |= statistics.keys()
    if others := [name for name, _ in network.named_buffers() if name not in known]:
        raise TargetError(
            "the network has state that is not a parameter",
            where=where,
            got=f"buffer {others[0]!r}",
            remedy="Make it a parameter, or a constant of the code.",
        )
    return statistics


def measuring(network: nn.Module) -> nn.Module:
    """A copy whose batch normalisations use their batch's statistics, and overwrite theirs."""
    twin = copy.deepcopy(network)
    for _, layer in _normalisations(twin):
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


def _normalisations(
    network: nn.Module,
) -> Iterator[tuple[str, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]]:
    for name, module in network.named_modules():
        if isinstance(module, _KINDS):
            yield f"{name}." if name else "", module
