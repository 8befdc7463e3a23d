"""A target network as pure functions of its flat weight vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from f2l_fed.core.dense_tensors import oddity, require_floats, require_labels
from f2l_fed.errors import TargetError, UsageError
from f2l_fed.targets.batch_norm import measuring, running_statistics, with_valid_variances
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
        output_weight: Name of the (K, F) weight of the last linear layer.
        output_bias: Name of its (K,) bias, or None.
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            template = factory()
        where = f"target {name!r}"
        if not isinstance(template, nn.Module):
            raise TargetError(
                "the factory does not return a network",
                where=where,
                expected="a torch.nn.Module",
                got=type(template).__name__,
            )
        # Dropout would make the outputs depend on more than weights and inputs.
        template.eval()
        parameters = dict(template.named_parameters())
        statistics = running_statistics(template, where=where)
        tensors = {**parameters, **statistics}
        if odd := [key for key, value in tensors.items() if value.dtype != torch.float32]:
            raise TargetError(
                "a parameter is not float32",
                where=where,
                got=f"{odd[0]} {tensors[odd[0]].dtype}",
            )
        for key, value in tensors.items():
            if found := oddity(value):
                raise TargetError(
                    "a parameter is not a plain tensor", where=where, got=f"{key}: {found}"
                )
        with torch.no_grad():
            try:
                output = template(torch.zeros(2, *input_shape))
            except (RuntimeError, ValueError) as error:
                raise TargetError(
                    "the network does not accept the data's inputs",
                    where=where,
                    got=f"inputs of shape {input_shape}",
                ) from error
        if not isinstance(output, Tensor) or output.shape != (2, classes):
            raise TargetError(
                "the network has the wrong output shape",
                where=where,
                expected=f"(batch, {classes})",
                got=f"(batch{''.join(f', {n}' for n in output.shape[1:])})"
                if isinstance(output, Tensor)
                else type(output).__name__,
            )
        heads = [
            key
            for key, module in template.named_modules()
            if isinstance(module, nn.Linear) and module.out_features == classes
        ]
        if not heads:
            raise TargetError(
                "no linear output layer found",
                where=where,
                expected=f"a last torch.nn.Linear with {classes} outputs",
            )
        prefix = f"{heads[-1]}." if heads[-1] else ""
        bias = f"{prefix}bias"
        return cls(
            name=name,
            input_shape=input_shape,
            classes=classes,
            factory=factory,
            template=template,
            trainee=measuring(template) if statistics else template,
            layout=WeightLayout.of(tensors),
            statistics=tuple(statistics),
            output_weight=f"{prefix}weight",
            output_bias=bias if bias in parameters else None,
        )

    def initialise(self, generator: torch.Generator) -> Tensor:
        """Random weights as the architecture's own initialisation draws them.

        Returns:
            (D,) float32; the same for equal generator states on every machine.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.factory()
        statistics = running_statistics(network, where=f"target {self.name!r}")
        return self.layout.flatten({**dict(network.named_parameters()), **statistics})

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
        tensors = with_valid_variances(self.layout.unflatten(weights), self.statistics)
        output: Tensor = functional_call(self.template, tensors, (x,))
        return output

    def training_logits(self, weights: Tensor, x: Tensor) -> Tensor:
        """`logits`, but where there is batch normalisation, by the statistics of these inputs.

        Their gradient is zero at the stored statistics.

        Raises:
            TargetError: If there is batch normalisation, and a single input.
        """
        if not self.statistics:
            return self.logits(weights, x)
        return self._measured(weights, x)[0]

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
        return self.layout.flatten(self._measured(weights, x)[1])

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
        tensors = self.layout.unflatten(weights)
        for name in self.statistics:
            # The call overwrites them.
            tensors[name] = tensors[name].detach().clone()
        output: Tensor = functional_call(self.trainee, tensors, (x,))
        return output, tensors
