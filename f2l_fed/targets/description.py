"""The description of a user's own network: what of it is generated, and what a round costs."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.errors import TargetError
from f2l_fed.targets.body import Body
from f2l_fed.targets.frozen import frozen_tensors
from f2l_fed.targets.head_rows import require_any_classes
from f2l_fed.targets.target import Target

NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDescription:
    """The facts about a target that one wants before a federation is made for it.

    Args:
        tensors: Names and shapes of what is trained, in the layout's order.
        digest: Of the layout.
        head: Name of the output layer's weight.
        size: D, the numbers of a whole network.
        body: B, the numbers of its body; 0 where the head can't be taken off.
        head_size: H, the numbers of its head.
        statistics: Names of the running statistics of batch normalisation.
        frozen: Numbers of the frozen part.
        remarks: Sentences on what is not possible with it.
    """

    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    digest: str
    head: str
    size: int
    body: int
    head_size: int
    statistics: tuple[str, ...]
    frozen: int
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, target: Target) -> TargetDescription:
        """The description of a target."""
        remarks, body = [], None
        try:
            body = Body.of(target)
            require_any_classes(body)
        except TargetError as error:
            remarks.append(str(error))
        frozen = frozen_tensors(target.template, target.layout.names, where=target.name)
        return cls(
            tensors=tuple(zip(target.layout.names, target.layout.shapes, strict=True)),
            digest=target.layout.digest,
            head=target.output_weight,
            size=target.layout.size,
            body=0 if body is None else body.layout.size,
            head_size=0 if body is None else body.head.layout.size,
            statistics=target.statistics,
            frozen=sum(tensor.numel() for tensor in frozen.values()),
            remarks=tuple(remarks),
        )

    def bytes_up(self, pairs: int) -> int:
        """Bytes of numbers that a site sends in a round of generated heads: a body and pairs."""
        return NUMBER_BYTES * (self.body + 2 * pairs * self.head_size)
