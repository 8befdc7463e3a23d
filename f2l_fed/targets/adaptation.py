"""The adapted part of a pretrained network in a factory of one's own: all else is frozen.

A factory that loads its weights, calls `adapted` and adds a head makes a target whose body is what
is adapted: small, trained by all sites and averaged, while the rest belongs to the digest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import TargetError
from f2l_fed.targets.config import PARTS

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class LowRank(nn.Module):
    """A frozen linear or convolution layer with a trained change of low rank, zero at first.

    The factor on the inputs is fixed, the same in every federation, so that changes of different
    sites can be averaged: with two free factors, (B R) and (R⁻¹ A) would be the same change.

    Args:
        layer: The layer.
        rank: Of the change.
        name: The layer's name, which decides the fixed factor.

    Reference:
        Hu et al.: LoRA, arXiv 2106.09685. Sun et al.: Improving LoRA in privacy-preserving
        federated learning, arXiv 2403.12313 (one factor fixed).
    """

    fixed: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, name: str) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        weight = layer.weight
        # Uniform draws have the same bits on every processor, normal ones have not.
        draws = torch.rand(rank, *weight.shape[1:], generator=generator_for("low rank", name))
        self.register_buffer("fixed", (draws - 0.5) * (12 / weight[0].numel()) ** 0.5)
        self.change = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result and its change; x as the layer takes it."""
        layer = self.layer
        if isinstance(layer, nn.Conv2d):
            inner = functional.conv2d(
                x, self.fixed, None, layer.stride, layer.padding, layer.dilation
            )
            change = functional.conv2d(inner, self.change[:, :, None, None])
        else:
            change = functional.linear(functional.linear(x, self.fixed), self.change)
        found: Tensor = layer(x) + change
        return found


def adapted(
    network: nn.Module, part: str, *, layers: Sequence[str] = ("",), rank: int = 4
) -> nn.Module:
    """The same network with all frozen but its adapted part.

    Running statistics of batch normalisation stay as they are, too.

    Args:
        network: A pretrained network, changed in place.
        part: One of `PARTS`.
        layers: Names of the submodules in which it lies; "" is the whole network.
        rank: Of low-rank changes.

    Raises:
        TargetError: If there is no such part or layer, or nothing to adapt in there.
    """
    if part not in PARTS:
        raise TargetError("unknown adapted part", expected=", ".join(PARTS), got=part)
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # It would never move its statistics, and none are measured.
            module.momentum = 0.0
    known = dict(network.named_modules())
    if missing := [name for name in layers if name not in known]:
        raise TargetError("the network has no such layer", where="layers", got=missing[0])
    for name in layers:
        _ADAPT[part](network, name, rank)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise TargetError("there is nothing to adapt", where=f"{part} in {', '.join(layers)}")
    return network


def _all(network: nn.Module, name: str, _: int) -> None:
    network.get_submodule(name).requires_grad_(True)


def _norms_and_biases(network: nn.Module, name: str, _: int) -> None:
    for module in network.get_submodule(name).modules():
        for key, parameter in module.named_parameters(recurse=False):
            if key == "bias" or isinstance(module, _NORMS):
                parameter.requires_grad_(True)


def _low_rank(network: nn.Module, name: str, rank: int) -> None:
    prefix = f"{name}." if name else ""
    inside, changed = "", dict[int, LowRank]()
    for inner, module in list(network.get_submodule(name).named_modules(remove_duplicate=False)):
        path = name if not inner else prefix + inner
        if isinstance(module, LowRank):
            inside = f"{path}."
        if inside and path.startswith(inside):
            continue
        if isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer):
            raise TargetError(
                "this attention takes the weights of its layers, not their results",
                where=path or "layers",
                got=type(module).__name__,
                remedy='Write it with linear layers that are called, or adapt "norm-bias".',
            )
        # A convolution of each channel alone has no ranks to speak of.
        conv = isinstance(module, nn.Conv2d) and module.groups == 1
        usual = conv and module.padding_mode == "zeros"
        if path and (usual or isinstance(module, nn.Linear)):
            # A layer that is registered twice stays one.
            low_rank = changed.setdefault(id(module), LowRank(module, rank, path))
            network.set_submodule(path, low_rank)


_ADAPT = {"last-block": _all, "norm-bias": _norms_and_biases, "lora": _low_rank}
