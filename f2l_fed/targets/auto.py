"""The choice of a target by the shape of the inputs, where none is named."""

from __future__ import annotations

from dataclasses import replace

from f2l_fed.errors import TargetError
from f2l_fed.targets.config import TargetConfig

AUTO = "auto"
"""The name that leaves the choice to `fitting_target`."""

_LEAST_SIDE, _LARGEST_SIDE = 8, 64
_MOST_FEATURES = 4096


def fitting_target(input_shape: tuple[int, ...]) -> str:
    """Name of the built-in target for inputs of a shape.

    Args:
        input_shape: (C, H, W) or (F,).

    Raises:
        TargetError: If the inputs are too large for one without further thought.

    >>> fitting_target((3, 32, 32)), fitting_target((1, 4, 4)), fitting_target((12,))
    ('cnn-xs', 'mlp', 'mlp')
    """
    if len(input_shape) == 1:
        if input_shape[0] > _MOST_FEATURES:
            raise TargetError(
                "no network is chosen by itself for so many features",
                where="[target] name",
                expected=f"at most {_MOST_FEATURES}",
                got=str(input_shape[0]),
                remedy="Leave columns out (ignore under [data]), or name one: target.name=mlp.",
            )
        return "mlp"
    sides = input_shape[1:]
    if max(sides) > _LARGEST_SIDE:
        raise TargetError(
            "no network is chosen by itself for images of this size",
            where="[target] name",
            expected=f"sides of at most {_LARGEST_SIDE} pixels",
            got="x".join(map(str, reversed(sides))),
            remedy=f"Make them smaller (resize under [data], such as data.resize=[{_LARGEST_SIDE},"
            f"{_LARGEST_SIDE}]), or name a network: target.name=cnn-m.",
        )
    return "cnn-xs" if min(sides) >= _LEAST_SIDE else "mlp"


def chosen_target(config: TargetConfig) -> TargetConfig:
    """The settings of a target with the name of a real one; raises TargetError if none suits."""
    if config.name != AUTO:
        return config
    return replace(config, name=fitting_target(config.input_shape))
