"""The search for the stored contexts that are nearest to those of many sites at a time.

Squared distances differ from one matrix product, of all stored contexts with all that are asked
for, by numbers that are known beforehand. A few records that come nearest by it are then compared
exactly, so that rounding decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.core.placement import CPU
from f2l_fed.generator.candidates import FittedRecords

_COMPARED = 8
"""Records that are compared exactly, for a context."""

_NUMBERS = 2**24
"""Most numbers of a product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestRecords:
    """Records that are ready to be searched.

    Args:
        contexts: (n, D) float32; the search is done where they are.
        halves: (n,) float32, half of their squared lengths.
        weights: (n, D) float32, anywhere.
    """

    contexts: Tensor
    halves: Tensor
    weights: Tensor

    @classmethod
    def of(cls, records: FittedRecords, device: torch.device = CPU) -> NearestRecords:
        """The search among some records, on a device."""
        contexts = records.contexts.to(device)
        some = max(1, _NUMBERS // max(1, contexts.shape[1]))
        halves = torch.cat([rows.square().sum(1) / 2 for rows in contexts.split(some)])
        return cls(contexts=contexts, halves=halves, weights=records.weights)

    def weights_for(self, contexts: Tensor, own: Sequence[range]) -> list[Tensor | None]:
        """The weights of the record with the nearest context to each of some others.

        Args:
            contexts: (m, D) float32, anywhere.
            own: For each of them the rows that don't count: those of its own site.

        Returns:
            (D,) float32 for each; None where no other record is left.
        """
        some, found = max(1, _NUMBERS // max(1, len(self.halves))), list[Tensor | None]()
        for start in range(0, len(contexts), some):
            part = slice(start, start + some)
            rows = self._rows(contexts[part].to(self.contexts.device), own[part])
            found += [None if row is None else self.weights[row] for row in rows]
        return found

    def _rows(self, contexts: Tensor, own: Sequence[range]) -> Iterator[int | None]:
        far = torch.addmm(self.halves, contexts, self.contexts.T, alpha=-1)
        for row, left_out in enumerate(own):
            far[row, left_out.start : left_out.stop] = torch.inf
        least, few = far.topk(min(_COMPARED, far.shape[1]), largest=False)
        for context, distances, rows in zip(contexts, least, few, strict=True):
            exact = (self.contexts[rows] - context).square().sum(1)
            exact = exact.where(distances < torch.inf, torch.inf)
            yield int(rows[exact.argmin()]) if bool((exact < torch.inf).any()) else None
