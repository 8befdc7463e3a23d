"""The construction of a target by its name."""

from __future__ import annotations

import difflib
from functools import lru_cache, partial
from importlib.metadata import entry_points

import torch

from f2l_fed.errors import TargetError
from f2l_fed.targets.adapter import adapter
from f2l_fed.targets.config import ADAPTER
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.imports import imported
from f2l_fed.targets.registry import TARGETS
from f2l_fed.targets.target import Factory, Target

_GROUP = "f2l_fed.targets"


def known_targets() -> list[str]:
    """Names that `build_target` accepts, besides ``module:factory``."""
    return sorted({ADAPTER, *TARGETS, *entry_points(group=_GROUP).names})


def build_target(
    name: str, input_shape: tuple[int, ...], classes: int, frozen: FrozenPart | None = None
) -> Target:
    """Builds a target network.

    Args:
        name: A known name, or ``module:factory`` where ``factory(input_shape, classes)``
            returns a ``torch.nn.Module``.
        input_shape: Shape of one input; of no matter on a frozen part.
        classes: Number of outputs, at least 2.
        frozen: The frozen part whose results are the inputs, of `ADAPTER` alone.

    Raises:
        TargetError: If the name is unknown or the network is not fit to be generated.

    >>> build_target("cnn-xs", (1, 28, 28), 5).layout.size
    1973
    >>> build_target("adapter", (3, 64, 64), 5, FrozenPart("0" * 64, 384)).layout.size
    1925
    """
    _require_both(name, frozen)
    if frozen is not None:
        inputs, network = adapter(frozen, classes)
        return Target.of(name, network, inputs, classes).on(frozen)
    return Target.of(name, partial(_factory(name), input_shape, classes), input_shape, classes)


def parameter_count(
    name: str, input_shape: tuple[int, ...], classes: int, frozen: FrozenPart | None = None
) -> int:
    """The number of parameters of a target that take a gradient, found without memory for them.

    Args:
        name: As for `build_target`; with its other arguments.

    Returns:
        The number; 0 where a factory of the user's own can't work without memory.

    Raises:
        TargetError: If the name is unknown or the network does not suit the inputs.

    >>> parameter_count("mlp", (1, 5000, 5000), 10)
    800000362
    """
    _require_both(name, frozen)
    if frozen is not None:
        return frozen.adapted + (frozen.features + 1) * classes
    return _counted(name, input_shape, classes)


@lru_cache(maxsize=32)
def _counted(name: str, input_shape: tuple[int, ...], classes: int) -> int:
    factory = _factory(name)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = factory(input_shape, classes)
        return sum(own.numel() for own in network.parameters() if own.requires_grad)
    except TargetError:
        raise
    except Exception:
        if name in TARGETS:
            raise
        return 0


def _require_both(name: str, frozen: FrozenPart | None) -> None:
    """Raises TargetError for an adapter without a frozen part, and for any other with one."""
    if (name == ADAPTER) != (frozen is not None):
        raise TargetError(
            "an adapter, and nothing else, sits on a backbone",
            where="[target] backbone",
            expected="the digest and the number of features of one" if frozen is None else "none",
            got=repr(name),
            remedy="f2l-admin target prepare prints both." if frozen is None else "",
        )


def _factory(name: str) -> Factory:
    if name in TARGETS:
        return TARGETS[name]
    if ":" in name:
        return imported(name, where="[target] name")
    for entry in entry_points(group=_GROUP, name=name):
        factory: Factory = entry.load()
        return factory
    close = difflib.get_close_matches(name, known_targets(), n=1)
    raise TargetError(
        "unknown target",
        where="[target] name",
        expected=f"one of {', '.join(known_targets())}, or module:factory",
        got=repr(name),
        remedy=f"Did you mean {close[0]!r}?" if close else "",
    )
