"""The fields of a request of protocol 4 that name its rows: candidates, bodies, temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from flwr.app import Array
from torch import Tensor

from f2l_fed.errors import WireError
from f2l_fed.wire.fields import digest, listed, require_name
from f2l_fed.wire.frames import ALL
from f2l_fed.wire.messages import Frame
from f2l_fed.wire.tensors import read_shaped

MOST_CANDIDATES = 4096
"""Most candidates of a task, over all episodes."""

LONGEST_CHAIN = 4096
"""Most digests of bodies in a request."""

MOST_TEMPERATURES = 256
"""Most temperatures of a task."""


def pack_kinds(candidates: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """The kinds of all candidates, one episode after the other, and each episode's number."""
    return {
        "kinds": [kind for episode in candidates for kind in episode],
        "candidates": [len(episode) for episode in candidates],
    }


def kinds_of(head: Mapping[str, Any], frame: Frame) -> list[list[str]]:
    """The kinds of each episode's candidates; the inverse of `pack_kinds`.

    Raises:
        WireError: If they are not plain names, each once in its episode.
    """
    kinds = listed(head, "kinds", str, most=MOST_CANDIDATES)
    counts = listed(head, "candidates", int, most=MOST_CANDIDATES)
    if any(count < 1 for count in counts):
        raise WireError("an episode has no candidates", where="candidates")
    if sum(counts) != len(kinds):
        raise WireError(
            "another number of candidates than named",
            where="candidates",
            expected=str(len(kinds)),
            got=str(sum(counts)),
        )
    if frame.adapt != ALL and len(counts) > 1:
        raise WireError("more than one episode of heads", where="candidates", got=str(len(counts)))
    for kind in kinds:
        require_name(kind, "kinds")
    source = iter(kinds)
    episodes = [[next(source) for _ in range(count)] for count in counts]
    if any(len(set(episode)) < len(episode) for episode in episodes):
        raise WireError("an episode names a candidate twice", where="kinds")
    return episodes


def candidates_of(
    arrays: Mapping[str, Array], kinds: Sequence[Sequence[str]]
) -> tuple[dict[str, Tensor], ...]:
    """For each episode, (D,) float32 by kind, from one array with a row for each candidate.

    Raises:
        WireError, LayoutMismatch: If the array is missing or has another number of rows.
    """
    if not kinds:
        return ()
    rows = iter(read_shaped(arrays, "candidates", (sum(map(len, kinds)), None)))
    return tuple({kind: next(rows) for kind in episode} for episode in kinds)


def chain_of(head: Mapping[str, Any], frame: Frame) -> tuple[str, ...]:
    """The digests of a lineage's bodies; raises WireError for anything else."""
    chain = listed(head, "chain", str, most=LONGEST_CHAIN)
    if chain and frame.adapt == ALL:
        raise WireError("a chain of bodies without a body", where="chain")
    return tuple(digest(one, "chain") for one in chain)


def pack_temperatures(temperatures: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Temperatures as two lists: numbers of examples, and divisors."""
    return {
        "temperatures.examples": [examples for examples, _ in temperatures],
        "temperatures": [float(divisor) for _, divisor in temperatures],
    }


def temperatures_of(head: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """The inverse of `pack_temperatures`.

    Raises:
        WireError: If they are not pairs of ascending numbers of examples and finite divisors.
    """
    examples = listed(head, "temperatures.examples", int, most=MOST_TEMPERATURES)
    divisors = listed(head, "temperatures", float, most=MOST_TEMPERATURES)
    if len(examples) != len(divisors):
        raise WireError(
            "temperatures and numbers of examples are not pairs",
            where="temperatures",
            expected=str(len(examples)),
            got=str(len(divisors)),
        )
    if any(one < 1 for one in examples) or any(a >= b for a, b in pairwise(examples)):
        raise WireError("not ascending numbers above 0", where="temperatures.examples")
    if not all(isfinite(one) and one > 0 for one in divisors):
        raise WireError("not finite numbers above 0", where="temperatures")
    return tuple(zip(examples, divisors, strict=True))
