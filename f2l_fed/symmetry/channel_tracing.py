"""Tracing of a network's channels from layer to layer, to find its spaces of hidden units."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.symmetry.hidden_units import Axis, HiddenSpace
from f2l_fed.targets import Target
from f2l_fed.targets.frozen import frozen_tensors

# Each commutes with a positive factor of a channel.
_HOMOGENEOUS: frozenset[object] = frozenset(
    {nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d}
    | {torch.relu, functional.relu, functional.leaky_relu, functional.dropout, "relu"}
)
_CURVED: frozenset[object] = frozenset(
    {nn.GELU, nn.SiLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish, nn.ReLU6}
    | {functional.gelu, functional.silu, functional.elu, torch.tanh, torch.sigmoid}
    | {"tanh", "sigmoid"}
)
_POOLING: frozenset[object] = frozenset(
    {nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d}
    | {nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d}
    | {functional.max_pool1d, functional.max_pool2d}
    | {functional.avg_pool1d, functional.avg_pool2d}
    | {functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d}
)
_FLATTENING: frozenset[object] = frozenset(
    {nn.Flatten, torch.flatten, "flatten", "view", "reshape"}
)
_ADDITION: frozenset[object] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})


def hidden_spaces(target: Target) -> tuple[HiddenSpace, ...]:
    """The spaces of a target's hidden units, from the input to the output.

    Inputs and outputs keep their places: their order has a meaning outside the network.

    Raises:
        TargetError: If the network's graph can't be traced, or has a step whose symmetries
            aren't known. To leave such a part as it is would be no answer: the order of the
            units beside it would decide the order of all others.
    """
    where = f"target {target.name!r}"
    try:
        # The wrapper lets a network that is a single layer be traced as one.
        graph = fx.symbolic_trace(nn.Sequential(target.template))
        with torch.no_grad():
            ShapeProp(graph).propagate(torch.zeros(2, *target.input_shape))
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _unknown(where, f"a graph that can't be traced ({type(error).__name__})") from error
    frozen = frozen_tensors(target.template, target.layout.names, where=where)
    return _Walk(target=target, where=where, frozen=frozenset(frozen)).spaces(graph)


def _unknown(where: str, got: str) -> TargetError:
    return TargetError(
        "the symmetries of the network's hidden units are unknown",
        where=where,
        expected="linear, convolution, normalisation and pooling layers, ReLU and additions",
        got=got,
        remedy="Leave its weights as they are.",
    )


@dataclass(slots=True, eq=False)
class _Group:
    """A space in the making; ``into`` is the one it turned out to be part of."""

    size: int
    fixed: bool = False
    scalable: bool = True
    levels: set[int] = field(default_factory=set)
    into: _Group | None = None

    @property
    def root(self) -> _Group:
        return self.into.root if self.into else self


@dataclass(frozen=True, slots=True)
class _Channels:
    """Dimension 1 of an intermediate value: units, each ``block`` entries long."""

    group: _Group
    block: int
    shape: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class _Walk:
    target: Target
    where: str
    groups: list[_Group] = field(default_factory=list)
    ties: dict[tuple[str, int], tuple[_Group, int]] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()

    def spaces(self, graph: fx.GraphModule) -> tuple[HiddenSpace, ...]:
        values: dict[fx.Node, _Channels] = {}
        for node in graph.graph.nodes:
            # A node without one is a number read off a shape.
            if "tensor_meta" in node.meta:
                inputs = [values[source] for source in node.all_input_nodes if source in values]
                values[node] = self._step(node, inputs)
        return tuple(
            self._space(group)
            for group in self.groups
            if group.root is group and not group.fixed and group.size > 1
        )

    def _space(self, group: _Group) -> HiddenSpace:
        axes = tuple(
            Axis(name, dimension, block)
            for (name, dimension), (owner, block) in self.ties.items()
            if owner.root is group
        )
        levels = tuple(sorted(group.levels, reverse=True))
        if any(longer % shorter for longer, shorter in pairwise(levels)):
            raise _unknown(self.where, f"channels in groups of {levels[0]} and of {levels[1]}")
        # A layer from units to the same units can't be balanced against itself.
        single = len({axis.name for axis in axes}) == len(axes)
        return HiddenSpace(group.size, levels, axes, group.scalable and single)

    def _step(self, node: fx.Node, inputs: list[_Channels]) -> _Channels:
        shape = self._shape(node)
        if node.op == "placeholder":
            return _Channels(self._new(shape[1], fixed=True), 1, shape)
        if not inputs:
            raise _unknown(self.where, f"the step {node.name!r}")
        x = inputs[0]
        if node.op == "output":
            x.group.root.fixed = True
            return x
        if node.op == "call_module":
            path = str(node.target).partition(".")[2]
            module = self.target.template.get_submodule(path)
            if (found := self._layer(module, f"{path}." if path else "", x, shape)) is not None:
                return found
            kind: object = type(module)
        else:
            kind = node.target
        if kind in _HOMOGENEOUS:
            return x
        if kind in _CURVED:
            x.group.root.scalable = False
            return x
        if kind in _POOLING and len(x.shape) > 2 and x.shape[:2] == shape[:2]:
            return _Channels(x.group, x.block, shape)
        if kind in _FLATTENING and shape == (x.shape[0], prod(x.shape[1:])):
            return _Channels(x.group, x.block * prod(x.shape[2:]), shape)
        if kind in _ADDITION and self._adds_equals(node, inputs):
            self._unite(x.group, inputs[-1].group)
            return x
        raise _unknown(self.where, f"the step {node.name!r}")

    def _layer(
        self, module: nn.Module, prefix: str, x: _Channels, shape: tuple[int, ...]
    ) -> _Channels | None:
        if type(module) is nn.Linear and len(x.shape) == 2:
            return self._mixed(prefix, module.bias is not None, x, shape)
        if type(module) in (nn.Conv1d, nn.Conv2d) and module.groups == 1:
            return self._mixed(prefix, module.bias is not None, x, shape)
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            names = [*dict(module.named_parameters()), "running_mean", "running_var"]
        elif type(module) is nn.GroupNorm and x.block == 1:
            names = [*dict(module.named_parameters())]
            if 1 < (length := x.group.size // module.num_groups) < x.group.size:
                x.group.root.levels.add(length)
        else:
            return None
        x.group.root.scalable = False
        for name in names:
            self._tie(prefix + name, 0, x.group, x.block)
        return x

    def _mixed(self, prefix: str, bias: bool, x: _Channels, shape: tuple[int, ...]) -> _Channels:
        """A layer in which every output depends on every input."""
        after = self._new(shape[1])
        self._tie(f"{prefix}weight", 1, x.group, x.block)
        self._tie(f"{prefix}weight", 0, after, 1)
        if bias:
            self._tie(f"{prefix}bias", 0, after, 1)
        return _Channels(after, 1, shape)

    def _tie(self, name: str, dimension: int, group: _Group, block: int) -> None:
        if name not in self.target.layout.names:
            if name in self.frozen:
                # What it says of a unit can't be given to another one.
                group.root.fixed = True
                return
            raise _unknown(self.where, f"{name!r}, which is shared by two layers")
        before, length = self.ties.setdefault((name, dimension), (group, block))
        if length != block:
            raise _unknown(self.where, f"{name!r}, which is used in two ways")
        self._unite(before, group)

    def _unite(self, one: _Group, other: _Group) -> None:
        one, other = one.root, other.root
        if one is other:
            return
        if self.groups.index(other) < self.groups.index(one):
            one, other = other, one
        other.into = one
        one.fixed |= other.fixed
        one.scalable &= other.scalable
        one.levels |= other.levels

    def _adds_equals(self, node: fx.Node, inputs: list[_Channels]) -> bool:
        terms = len(node.args) == 2 and all(isinstance(term, fx.Node) for term in node.args)
        alike = {(value.shape, value.block) for value in inputs}
        return terms and not node.kwargs and len(alike) == 1

    def _new(self, size: int, *, fixed: bool = False) -> _Group:
        self.groups.append(_Group(size, fixed))
        return self.groups[-1]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        found = node.meta["tensor_meta"]
        if not isinstance(found, TensorMetadata):
            raise _unknown(self.where, f"the step {node.name!r} with more than one result")
        return tuple(found.shape)
