"""Fields of messages: read from Flower's records, each with its type and range checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from f2l_fed.errors import ConfigError, LayoutMismatch, WireError
from f2l_fed.wire.messages import NUMBERS

if TYPE_CHECKING:
    from f2l_fed.targets.layout import WeightLayout

_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{1,200}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TYPES = {"int": int, "float": float, "bool": bool}

Settings = TypeVar("Settings")


class CountMismatch(WireError):
    """A reply with another number of networks or probes than was asked."""


def config_of(content: RecordDict, key: str) -> Mapping[str, Any]:
    """One config record of a message.

    Raises:
        WireError: If it is missing.
    """
    # Flower's `config_records` would walk through all records each time.
    found = content.get(key)
    if not isinstance(found, ConfigRecord):
        raise WireError("a part of the message is missing", expected=key)
    return found


def typed(head: Mapping[str, Any], key: str, kind: type) -> Any:
    """A field of exactly this type; raises WireError for any other."""
    value = head.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WireError(
            "a field of the message has the wrong type",
            where=key,
            expected=kind.__name__,
            got=type(value).__name__,
        )
    return value


def counted(head: Mapping[str, Any], key: str, *, least: int = 1) -> int:
    """A whole number that is not below the least; raises WireError for any other."""
    value: int = typed(head, key, int)
    if value < least:
        raise WireError("a number is too small", where=key, expected=f">= {least}", got=str(value))
    return value


def named(head: Mapping[str, Any], key: str) -> str:
    """A name that is fit to be printed and kept; raises WireError for any other."""
    value: str = typed(head, key, str)
    require_name(value, key)
    return value


def require_name(value: str, where: str) -> None:
    """Raises WireError unless a text is a plain, short name."""
    if _NAME.fullmatch(value) is None:
        raise WireError("not a plain name", where=where, expected=_NAME.pattern)


def digest(value: Any, where: str) -> str:
    """A SHA-256 in hexadecimal; raises WireError for anything else."""
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise WireError("not a digest", where=where, expected=_DIGEST.pattern)
    return value


def listed(head: Mapping[str, Any], key: str, kind: type, *, most: int) -> list[Any]:
    """A list of at most so many values of one type; raises WireError for anything else."""
    values: list[Any] = typed(head, key, list)
    if len(values) > most:
        raise WireError(
            "a list is too long", where=key, expected=f"<= {most}", got=str(len(values))
        )
    # Not isinstance: a truth value is no number.
    if not all(type(value) is kind for value in values):
        raise WireError("not a list of one type", where=key, expected=kind.__name__)
    return values


def pack_settings(prefix: str, settings: Any) -> dict[str, Any]:
    """A dataclass of numbers and truth values as fields "prefix.name"."""
    return {
        f"{prefix}.{field.name}": _TYPES[str(field.type)](getattr(settings, field.name))
        for field in fields(settings)
    }


def unpack_settings(kind: type[Settings], prefix: str, head: Mapping[str, Any]) -> Settings:
    """The inverse of `pack_settings`.

    Raises:
        WireError: If a field is missing, has another type or a value that the dataclass refuses.
    """
    values = {
        field.name: typed(head, f"{prefix}.{field.name}", _TYPES[str(field.type)])
        for field in fields(kind)  # type: ignore[arg-type]
    }
    try:
        return kind(**values)
    except ConfigError as error:
        raise WireError(
            error.what,
            where=f"{prefix}.{error.where}",
            expected=error.expected,
            got=error.got,
        ) from error


def declared_numbers(content: RecordDict) -> dict[str, float]:
    """The numbers that an update declares; a site may keep all to itself.

    Raises:
        WireError: If one is unknown or not finite.
    """
    numbers = content.get("numbers", MetricRecord())
    if not isinstance(numbers, MetricRecord):
        raise WireError("the declared numbers are no numbers", where="numbers")
    if odd := [name for name in numbers if name not in NUMBERS]:
        raise WireError("an unknown declared number", got=repr(odd[0]))
    return {name: _finite(name, value) for name, value in numbers.items()}


def chosen_kinds(head: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds that an update names as its starts; raises WireError unless they are texts."""
    # Flower can't count the bytes of an empty list, so an update of no networks has none.
    chosen = typed(head, "chosen", list) if "chosen" in head else []
    if not all(isinstance(kind, str) for kind in chosen):
        raise WireError("the chosen starts are not a list of names", got=repr(chosen)[:32])
    return tuple(chosen)


def require_count(found: int, asked: int | None) -> None:
    """Raises CountMismatch if a number of networks or probes was asked for and not sent."""
    if asked is not None and found != asked:
        raise CountMismatch(
            "another number of networks or probes than was asked",
            expected=str(asked),
            got=str(found),
        )


def require_layout(told: str, layout: WeightLayout) -> None:
    """Raises LayoutMismatch if a reply has another layout."""
    if told != layout.digest:
        raise LayoutMismatch(
            "the reply has another layout",
            expected=layout.digest[:12],
            got=told[:12],
            remedy="Install the same version of F2L-Fed and of the target on both sides.",
        )


def _finite(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError("a declared number is not finite", where=name, got=repr(value)[:32])
    return float(value)
