"""A target network as pure functions of its flat weight vector."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from f2l_fed.core.dense_tensors import oddity, require_floats, require_labels
from f2l_fed.core.placement import CPU, placed
from f2l_fed.errors import TargetError, UsageError
from f2l_fed.targets.batch_norm import measuring, running_statistics, with_valid_variances
from f2l_fed.targets.frozen import frozen_tensors, kept_in_copies, tensors_digest
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.inspection import fresh_network, output_layer
from f2l_fed.targets.layout import WeightLayout

Factory = Callable[[tuple[int, ...], int], nn.Module]
"""A function from the shape of one input and the number of outputs to a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A network architecture for inputs of one shape and a number of classes.

    Args:
        name: As in the configuration.
        input_shape: Shape of one input, e.g. (1, 28, 28) or (10,).
        classes: K, number of outputs.
        factory: Builds a freshly initialised network from torch's global generator.
        template: A network whose weights are never used, only its structure.
        trainee: The same where there is no batch normalisation; else a copy that normalises by
            the batch.
        layout: Order of the parameters, followed by the statistics of batch normalisation.
        statistics: Names of the latter.
        frozen: The frozen part that makes the inputs, where they are features; None where the
            inputs are the data's.
        output_weight: Name of the (K, F) weight of the last linear layer.
        output_bias: Name of its (K,) bias, or None.
        device: Where the network computes; what it makes is where the weights were that it got.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    factory: Callable[[], nn.Module]
    template: nn.Module
    trainee: nn.Module
    layout: WeightLayout
    statistics: tuple[str, ...]
    output_weight: str
    output_bias: str | None
    frozen: FrozenPart | None = None
    device: torch.device = CPU

    @classmethod
    def of(
        cls,
        name: str,
        factory: Callable[[], nn.Module],
        input_shape: tuple[int, ...],
        classes: int,
    ) -> Target:
        """The target of a factory, after checks of the network that it builds.

        Raises:
            TargetError: If its networks can't be generated as one vector of float32 weights.
        """
        where = f"target {name!r}"
        template = fresh_network(factory, input_shape, 0, where=where)
        parameters = trainable(template)
        statistics = running_statistics(template, where=where)
        tensors = {**parameters, **statistics}
        if odd := [key for key, value in tensors.items() if value.dtype != torch.float32]:
            raise TargetError(
                "a parameter is not float32",
                where=where,
                got=f"{odd[0]} {tensors[odd[0]].dtype}",
                remedy="Call float() on it in the factory, or freeze it.",
            )
        for key, value in tensors.items():
            if found := oddity(value):
                raise TargetError(
                    "a parameter is not a plain tensor", where=where, got=f"{key}: {found}"
                )
        frozen = frozen_tensors(template, tensors, where=where)
        path = output_layer(template, input_shape, classes, where=where)
        prefix = f"{path}." if path else ""
        weight, bias = f"{prefix}weight", f"{prefix}bias"
        every = template.named_parameters(remove_duplicate=False)
        others = [key for key, own in every if own is tensors.get(weight) and key != weight]
        if weight not in parameters or others:
            raise TargetError(
                "the output layer can't be generated",
                where=where,
                got=f"{weight!r}, which is "
                + ("frozen" if weight in frozen else "no parameter of its own"),
                remedy="Give it a trainable weight of its own.",
            )
        return cls(
            name=name,
            input_shape=input_shape,
            classes=classes,
            factory=factory,
            template=template,
            trainee=measuring(template, kept_in_copies(template, tensors))
            if statistics
            else template,
            layout=WeightLayout.of(tensors, tensors_digest(frozen) if frozen else ""),
            statistics=tuple(statistics),
            output_weight=weight,
            output_bias=bias if bias in parameters else None,
        )

    def initialise(self, generator: torch.Generator) -> Tensor:
        """Random weights as the architecture's own initialisation draws them.

        Returns:
            (D,) float32; the same for equal generator states on every machine.
        """
        seed, where = int(torch.randint(2**62, (), generator=generator)), f"target {self.name!r}"
        network = fresh_network(self.factory, self.input_shape, seed, where=where)
        statistics = running_statistics(network, where=where)
        return self.layout.flatten({**trainable(network), **statistics})

    def module(self, weights: Tensor) -> nn.Module:
        """A network of its own with these weights, (D,) float32, ready to predict."""
        network = copy.deepcopy(self.template)
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        with torch.no_grad():
            for name, value in self.layout.unflatten(weights).items():
                tensors[name].copy_(value)
        return network

    def on(self, frozen: FrozenPart) -> Target:
        """The same network, as one on the features of a frozen part."""
        return replace(self, frozen=frozen, layout=replace(self.layout, frozen=frozen.digest))

    def to(self, device: torch.device) -> Target:
        """The same network, computing on a device."""
        return self if device == self.device else placed(self, device)

    def require(self, weights: Tensor, x: Tensor, y: Tensor) -> None:
        """Requires weights of this network, and labelled examples that suit it.

        Args:
            weights: (D,) float32.
            x: (n, *input_shape) float32.
            y: (n,) int64, below K.

        Raises:
            LayoutMismatch: If the vector has another length.
            UsageError: If a tensor is of another kind, type or shape.
        """
        require_floats(weights=weights, inputs=x)
        self.layout.unflatten(weights)
        if tuple(x.shape[1:]) != self.input_shape or not x.dim():
            raise UsageError(
                "the inputs have another shape than the network's",
                where="inputs",
                expected=f"(n, {', '.join(map(str, self.input_shape))})",
                got=str(tuple(x.shape)),
            )
        require_labels(y, len(x), self.classes)

    def logits(self, weights: Tensor, x: Tensor) -> Tensor:
        """Applies the network with the given weights; differentiable in both.

        Args:
            weights: (D,) float32.
            x: (batch, *input_shape) float32.

        Returns:
            (batch, K) float32.
        """
        there = weights.to(self.device)
        tensors = with_valid_variances(self.layout.unflatten(there), self.statistics)
        output: Tensor = functional_call(self.template, tensors, (x.to(self.device),))
        return output.to(weights.device)

    def training_logits(self, weights: Tensor, x: Tensor) -> Tensor:
        """`logits`, but where there is batch normalisation, by the statistics of these inputs.

        Their gradient is zero at the stored statistics.

        Raises:
            TargetError: If there is batch normalisation, and a single input.
        """
        if not self.statistics:
            return self.logits(weights, x)
        return self._measured(weights, x)[0].to(weights.device)

    @torch.no_grad()
    def calibrated(self, weights: Tensor, x: Tensor) -> Tensor:
        """The weights with the statistics of batch normalisation as they are on some inputs.

        Args:
            weights: (D,) float32; returned as they are where there is no batch normalisation.
            x: (n, *input_shape) float32, what the network was trained on; never test examples.

        Returns:
            (D,) float32.

        Raises:
            TargetError: If there is batch normalisation, and a single input.
        """
        if not self.statistics:
            return weights
        return self.layout.flatten(self._measured(weights, x)[1]).to(weights.device)

    def tempered(self, weights: Tensor, temperature: float) -> Tensor:
        """The network with its logits divided by a temperature: (D,) float32 to (D,)."""
        if temperature == 1:
            return weights
        tensors = dict(self.layout.unflatten(weights))
        for name in (self.output_weight, self.output_bias):
            if name is not None:
                tensors[name] = tensors[name] / temperature
        return self.layout.flatten(tensors)

    def _measured(self, weights: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if len(x) < 2:
            raise TargetError(
                "batch normalisation can't be trained on a single example",
                where=f"target {self.name!r}",
                expected="batches of 2 or more examples",
                got=str(len(x)),
                remedy="Use larger batches, or a target with GroupNorm.",
            )
        tensors = self.layout.unflatten(weights.to(self.device))
        for name in self.statistics:
            # The call overwrites them.
            tensors[name] = tensors[name].detach().clone()
        output: Tensor = functional_call(self.trainee, tensors, (x.to(self.device),))
        return output, tensors


def trainable(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network that take a gradient, by name; a shared one once."""
    named = network.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}
