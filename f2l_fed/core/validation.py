"""Rules that configuration values must keep, stated once."""

from __future__ import annotations

from collections.abc import Collection

from f2l_fed.errors import ConfigError


def require(fulfilled: bool, owner: object, name: str, expected: str) -> None:
    """Raises ConfigError, naming the field and its value, unless the rule is fulfilled."""
    if not fulfilled:
        raise ConfigError(
            f"{name} is out of range", where=name, expected=expected, got=repr(getattr(owner, name))
        )


def positive(owner: object, *names: str) -> None:
    """The fields are above zero."""
    for name in names:
        require(getattr(owner, name) > 0, owner, name, "> 0")


def share(owner: object, *names: str) -> None:
    """The fields are in [0, 1)."""
    for name in names:
        require(0 <= getattr(owner, name) < 1, owner, name, ">= 0 and < 1")


def choice(owner: object, name: str, known: Collection[str]) -> None:
    """The field is one of the known names."""
    require(getattr(owner, name) in known, owner, name, "one of " + ", ".join(sorted(known)))
