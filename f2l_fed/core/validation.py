"""Rules for the values of configuration dataclasses."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from f2l_fed.errors import ConfigError


def require(fulfilled: bool, owner: object, name: str, expected: str) -> None:
    """Requires a rule of a field.

    Raises:
        ConfigError: With the field and its value, if the rule is not fulfilled.
    """
    if not fulfilled:
        raise ConfigError(
            f"{name} is out of range", where=name, expected=expected, got=repr(getattr(owner, name))
        )


def positive(owner: object, *names: str) -> None:
    """Requires fields above zero."""
    for name in names:
        require(getattr(owner, name) > 0, owner, name, "> 0")


def finite(owner: object, *names: str) -> None:
    """Requires fields in [0, ∞)."""
    for name in names:
        require(0 <= getattr(owner, name) < inf, owner, name, ">= 0, finite")


def share(owner: object, *names: str) -> None:
    """Requires fields in [0, 1)."""
    for name in names:
        require(0 <= getattr(owner, name) < 1, owner, name, ">= 0 and < 1")


def choice(owner: object, name: str, known: Collection[str]) -> None:
    """Requires a field that is one of the known names."""
    require(getattr(owner, name) in known, owner, name, "one of " + ", ".join(sorted(known)))
