"""The body of a target network, which all sites share, and its head, which is generated.

The head is the last linear layer, and a target of its own: a linear network on the body's
features. So whatever acts on a target (layout, symmetry, codec, flow, audit, zoo) acts on heads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from f2l_fed.core.placement import placed
from f2l_fed.errors import TargetError
from f2l_fed.targets.batch_norm import measuring, with_valid_variances
from f2l_fed.targets.frozen import kept_in_copies
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.targets.target import Target

SCALE = "episodic.log_scale"
"""Name of the body's last number: the logarithm of the scale of distances, learnt in episodes."""

_LARGEST_SCALE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A target network up to its last linear layer.

    Args:
        network: The whole network.
        head: The last layer as a target: (F,) features to K outputs.
        layout: Layout of the body's B numbers: the network's tensors without the head's, and
            `SCALE`.
        template: The network without its last layer; its weights are never used.
        trainee: The same, normalising by the batch where there is batch normalisation.
    """

    network: Target
    head: Target
    layout: WeightLayout
    template: nn.Module
    trainee: nn.Module

    @classmethod
    def of(cls, network: Target) -> Body:
        """The body of a network.

        Raises:
            TargetError: If the network does anything after its last linear layer.
        """
        path = network.output_weight.removesuffix("weight").removesuffix(".")
        where = f"target {network.name!r}"
        layer = network.template.get_submodule(path) if path else network.template
        assert isinstance(layer, nn.Linear)
        shared = kept_in_copies(network.template, network.layout.names)
        if path:
            template = copy.deepcopy(network.template, dict[int, Any](shared))
            template.set_submodule(path, nn.Identity())
        else:
            template = nn.Identity()
        _require_last(network, template, layer, where)
        owned = {network.output_weight, network.output_bias}
        tensors = [
            (name, shape)
            for name, shape in zip(network.layout.names, network.layout.shapes, strict=True)
            if name not in owned
        ]
        names, shapes = zip(*tensors, (SCALE, (1,)), strict=True)
        features, bias = layer.in_features, network.output_bias is not None
        head = Target.of(
            f"{network.name} head",
            partial(nn.Linear, features, network.classes, bias=bias),
            (features,),
            network.classes,
        )
        frozen = network.layout.frozen
        return cls(
            network=network,
            head=replace(head, layout=replace(head.layout, frozen=frozen)),
            layout=WeightLayout(names, shapes, frozen),
            template=template,
            trainee=measuring(template, shared) if network.statistics else template,
        )

    def to(self, device: torch.device) -> Body:
        """The same body, computing on a device; see `Target.device`."""
        return self if device == self.network.device else placed(self, device)

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of the body is trained; then its `SCALE` is not, either."""
        return self.layout.names == (SCALE,)

    def initialise(self, generator: torch.Generator) -> Tensor:
        """Random weights as the network's own initialisation draws them, at scale 1.

        Returns:
            (B,) float32; the same for equal generator states on every machine.
        """
        return self.split(self.network.initialise(generator))[0]

    def features(self, weights: Tensor, x: Tensor) -> Tensor:
        """The features of inputs; differentiable in both.

        Args:
            weights: (B,) float32.
            x: (n, *input_shape) float32.

        Returns:
            (n, F) float32.
        """
        device = self.network.device
        tensors = self._tensors(weights.to(device))
        tensors = with_valid_variances(tensors, self.network.statistics)
        found: Tensor = functional_call(self.template, tensors, (x.to(device),))
        return found.to(weights.device)

    def training_features(self, weights: Tensor, x: Tensor) -> Tensor:
        """`features`, but where there is batch normalisation, by the statistics of these inputs."""
        if not self.network.statistics:
            return self.features(weights, x)
        return self._measured(weights, x)[0].to(weights.device)

    @torch.no_grad()
    def calibrated(self, weights: Tensor, x: Tensor) -> Tensor:
        """The weights with the statistics of batch normalisation as they are on some inputs.

        Args:
            weights: (B,) float32; returned as they are where there is no batch normalisation.
            x: (n, *input_shape) float32, at least two.
        """
        if not self.network.statistics:
            return weights
        tensors = placed(self._measured(weights, x)[1], weights.device)
        return self.layout.flatten({**self.layout.unflatten(weights), **tensors})

    def scale(self, weights: Tensor) -> Tensor:
        """() float32, the learnt scale of distances between features, at most 100."""
        return weights[-1].exp().clamp(max=_LARGEST_SCALE)

    def join(self, weights: Tensor, head: Tensor) -> Tensor:
        """The whole network: (B,) and (H,) float32 to (D,)."""
        tensors = self._tensors(weights)
        own = self.head.layout.unflatten(head)
        tensors[self.network.output_weight] = own["weight"]
        if self.network.output_bias is not None:
            tensors[self.network.output_bias] = own["bias"]
        return self.network.layout.flatten(tensors)

    def split(self, network: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `join`, with scale 1: (D,) float32 to (B,) and (H,)."""
        tensors = self.network.layout.unflatten(network)
        own = {"weight": tensors[self.network.output_weight]}
        if self.network.output_bias is not None:
            own["bias"] = tensors[self.network.output_bias]
        tensors[SCALE] = network.new_zeros(1)
        return (
            self.layout.flatten({name: tensors[name] for name in self.layout.names}),
            self.head.layout.flatten(own),
        )

    def _tensors(self, weights: Tensor) -> dict[str, Tensor]:
        tensors = self.layout.unflatten(weights)
        del tensors[SCALE]
        return tensors

    def _measured(self, weights: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if len(x) < 2:
            raise TargetError(
                "batch normalisation can't be trained on a single example",
                where=f"target {self.network.name!r}",
                expected="2 or more examples",
                got=str(len(x)),
            )
        device = self.network.device
        tensors = self._tensors(weights.to(device))
        for name in self.network.statistics:
            # The call overwrites them.
            tensors[name] = tensors[name].detach().clone()
        found: Tensor = functional_call(self.trainee, tensors, (x.to(device),))
        return found, {name: tensors[name] for name in self.network.statistics}


def body_digest(body: Tensor) -> str:
    """SHA-256 of a (B,) float32 body, as chains name it; 64 hexadecimal digits."""
    return sha256(body.numpy().data).hexdigest()


def length_of(body: Tensor) -> float:
    """Euclidean length of a (B,) body, at least 1; bounds on its change are relative to it.

    Low-rank changes are zero at first, so their own length would bound nothing.
    """
    return max(float(body.norm()), 1.0)


@torch.no_grad()
def _require_last(network: Target, template: nn.Module, layer: nn.Linear, where: str) -> None:
    """Raises TargetError unless the linear layer is the last thing that the network does."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, *network.input_shape, generator=rng)
    features = template(x)
    usable = isinstance(features, Tensor) and features.shape == (2, layer.in_features)
    if not usable or not torch.allclose(layer(features), network.template(x), atol=1e-5):
        raise TargetError(
            "the network's head can't be generated apart from its body",
            where=where,
            expected="a network whose last step is its linear output layer",
            remedy='Use another target, or adapt = "all".',
        )
