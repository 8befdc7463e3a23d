"""A pretrained network cut before its first adapted layer: a frozen front, and the tail after it.

The front's results are the same in every step, so they are made once an example and kept. Of a
layer with a change of low rank they hold both products that are fixed, so a step of the tail costs
the change's rank and what comes after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, fx, nn

from f2l_fed.errors import TargetError
from f2l_fed.targets.inspection import told

_INPUT, _OUTPUT, _VALUE = "placeholder", "output", "get_attr"


@dataclass(frozen=True, slots=True)
class CutTail:
    """The steps of a network after the cut.

    Args:
        graph: From the values at the cut, and the changes of the adapted tensors, to its output.
        shapes: Shapes of the values for one example.
        changes: Shapes of the adapted tensors.
    """

    graph: fx.GraphModule
    shapes: tuple[tuple[int, ...], ...]
    changes: tuple[tuple[int, ...], ...]


class AdaptedTail(nn.Module):
    """The part of a network from its first adapted layer on, whose one parameter is the change.

    The change is zero where the network is as it was, whatever is adapted: so an average of
    changes is one of networks, and where the network isn't installed the size of the change is
    all that has to be known of it.

    Args:
        tail: The steps.
        after: What is done to their output.
    """

    def __init__(self, tail: CutTail, after: nn.Module) -> None:
        super().__init__()
        self.shapes, self.changes = tail.shapes, tail.changes
        self.graph, self.after = tail.graph, after
        self.change = nn.Parameter(torch.zeros(sum(map(prod, tail.changes))))

    @property
    def inputs(self) -> int:
        """C, the number of values at the cut for one example."""
        return sum(map(prod, self.shapes))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, F) of the values at the cut, (n, C) float32."""
        parts = x.split([prod(shape) for shape in self.shapes], dim=1)
        values = [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]
        parts = self.change.split([prod(shape) for shape in self.changes])
        changes = [part.view(shape) for part, shape in zip(parts, self.changes, strict=True)]
        found: Tensor = self.after(self.graph(*values, *changes))
        return found


class FrozenFront(nn.Module):
    """The part of a network before its first adapted layer.

    Args:
        before: What is done to an input.
        graph: From the network's input to the values at the cut.
    """

    def __init__(self, before: nn.Module, graph: fx.GraphModule) -> None:
        super().__init__()
        self.before = before
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """The values at the cut, side by side: (n, *input_shape) float32 to (n, C)."""
        return torch.cat([value.flatten(1) for value in self.graph(self.before(x))], dim=1)

    def after_preprocessing(self) -> nn.Module:
        """The same from the network's own inputs on, such as tokens of texts."""
        return FrozenFront(nn.Identity(), self.graph)


@dataclass(frozen=True, slots=True)
class CutNetwork:
    """Both parts of a network, without what is done before and after it.

    Args:
        front: From its input to a tuple of values.
        tail: From these to its output.
        adapted: Names and shapes of the adapted tensors, such as "conv.weight 8x3x3x3".
    """

    front: fx.GraphModule
    tail: CutTail
    adapted: tuple[str, ...]


def cut_network(network: nn.Module, x: Tensor, *, where: str) -> CutNetwork:
    """Cuts a network before its first adapted layer.

    Args:
        network: In eval mode, with gradients for its adapted tensors alone.
        x: (2, ...) inputs of its.

    Raises:
        TargetError: If its steps can't be recorded, or the adapted layers are none of them.
    """
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            # torch warns of steps of its own.
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},), strict=False)
            # Without steps that change a value in place: the front's are kept.
            recorded = program.run_decompositions({}).module(check_guards=False)
    except Exception as error:
        raise TargetError(
            "the backbone's steps can't be recorded, so no part before its head can be adapted",
            where=where,
            got=told(error),
            remedy="Adapt the head alone, or let its forward treat any batch alike (torch.export).",
        ) from error
    adapted = {
        name: tuple(one.shape)
        for name, one in sorted(network.named_parameters())
        if one.requires_grad
    }
    return _Cut(recorded, adapted, where).parts()


class _Cut:
    """The division of a recorded network's steps.

    A step is late if an adapted tensor decides it, and fixed if no input does; all others are the
    front's.
    """

    def __init__(
        self, recorded: fx.GraphModule, adapted: dict[str, tuple[int, ...]], where: str
    ) -> None:
        self.recorded, self.adapted = recorded, adapted
        self.nodes = [node for node in recorded.graph.nodes if node.op != _OUTPUT]
        self.input = next(node for node in self.nodes if node.op == _INPUT)
        (output,) = (node for node in recorded.graph.nodes if node.op == _OUTPUT)
        (self.result,) = output.all_input_nodes
        self.changed = {node for node in self.nodes if node.op == _VALUE and node.target in adapted}
        self.late = self._after(self.changed)
        self.fixed = set(self.nodes) - self._after({self.input})
        if self.result not in self.late:
            raise TargetError("no adapted layer decides the backbone's features", where=where)

    def parts(self) -> CutNetwork:
        """Front and tail, with the cut moved forward until it holds one value an example."""
        while odd := [node for node in self._crossing() if not self._is_by_example(node)]:
            self.late.update(odd)
        crossing = self._crossing()
        return CutNetwork(
            front=fx.GraphModule(self.recorded, self._front(crossing)).requires_grad_(False),
            tail=CutTail(
                fx.GraphModule(self.recorded, self._tail(crossing)).requires_grad_(False),
                tuple(tuple(node.meta["val"].shape[1:]) for node in crossing),
                tuple(self.adapted.values()),
            ),
            adapted=tuple(
                f"{name} {'x'.join(map(str, shape))}" for name, shape in self.adapted.items()
            ),
        )

    def _front(self, crossing: Sequence[fx.Node]) -> fx.Graph:
        graph = fx.Graph()
        copies = {self.input: graph.placeholder("x")}
        self._copy(graph, copies, crossing)
        graph.output(tuple(copies[node] for node in crossing))
        return graph

    def _tail(self, crossing: Sequence[fx.Node]) -> fx.Graph:
        graph = fx.Graph()
        copies = {node: graph.placeholder(f"value_{place}") for place, node in enumerate(crossing)}
        changes = {
            name: graph.placeholder(f"change_{place}") for place, name in enumerate(self.adapted)
        }
        batch = graph.call_function(torch.ops.aten.sym_size.int, (copies[crossing[0]], 0))
        for node in self.nodes:
            if node in self.changed:
                first = graph.get_attr(str(node.target))
                change = changes[str(node.target)]
                copies[node] = graph.call_function(torch.ops.aten.add.Tensor, (first, change))
            elif _is_size(node) and str(node.meta["val"]) == str(self._batch):
                copies[node] = batch
        self._copy(graph, copies, [self.result])
        graph.output(copies[self.result])
        graph.eliminate_dead_code()
        return graph

    def _copy(
        self, graph: fx.Graph, copies: dict[fx.Node, fx.Node], wanted: Sequence[fx.Node]
    ) -> None:
        """Copies what decides some nodes into a graph, up to those that are there."""
        needed, open_ = set(copies), list(wanted)
        while open_:
            if (node := open_.pop()) not in needed:
                needed.add(node)
                open_ += node.all_input_nodes
        for node in self.nodes:
            if node in needed and node not in copies:
                copies[node] = copy = graph.node_copy(node, copies.__getitem__)
                if copy.target is torch.ops.aten.view.default:
                    # Values that were kept lie in memory otherwise than those that are made.
                    copy.target = torch.ops.aten.reshape.default

    def _after(self, begin: set[fx.Node]) -> set[fx.Node]:
        """The nodes that some of the given ones decide, and these."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            if node in begin or not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return found

    def _crossing(self) -> list[fx.Node]:
        """The front's nodes that the tail takes; numbers of examples it finds by itself."""
        used = {before for node in self.late for before in node.all_input_nodes}
        taken = used - self.late - self.fixed
        return [node for node in self.nodes if node in taken and not _is_size(node)]

    @property
    def _batch(self) -> object:
        return self.input.meta["val"].shape[0]

    def _is_by_example(self, node: fx.Node) -> bool:
        """Whether a node has one value of float32 for each example; the network's input has."""
        value = node.meta["val"]
        return node is self.input or (
            value.dtype == torch.float32
            and value.dim() > 1
            and str(value.shape[0]) == str(self._batch)
            and all(isinstance(size, int) for size in value.shape[1:])
        )


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a number of examples, or made of it."""
    return isinstance(node.meta.get("val"), torch.SymInt)
