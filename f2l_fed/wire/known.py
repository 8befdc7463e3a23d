"""The numbers that both sides of an answer know, which it need not repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Known:
    """The numbers in a task from which those in its answer are told as distances.

    Args:
        starts: (n, D) float32, the starts of the networks; None where they have none.
        body: (B,) float32, the body that was sent; None without one.
    """

    starts: Tensor | None = None
    body: Tensor | None = None


NOTHING = Known()


def chosen_starts(
    candidates: Sequence[Mapping[str, Tensor]], chosen: Sequence[str]
) -> Tensor | None:
    """(n, D) float32, the candidate that each network started from; None if any is unknown.

    Args:
        candidates: For each episode, as in the task.
        chosen: Their kinds, as in the answer.
    """
    if not chosen or len(candidates) != len(chosen):
        return None
    starts = [one.get(kind) for one, kind in zip(candidates, chosen, strict=True)]
    found = [start for start in starts if start is not None]
    return torch.stack(found) if len(found) == len(starts) else None


def repeated(start: Tensor | None, count: int) -> Tensor | None:
    """(count, D) float32, one start of several networks; None without one."""
    return None if start is None or not count else start.expand(count, -1)
