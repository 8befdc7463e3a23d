"""Configuration dataclasses from plain values, such as those of a TOML or JSON file."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, TypeVar

from f2l_fed.errors import ConfigError, F2LError

T = TypeVar("T")


def from_mapping(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Builds a configuration dataclass from nested plain values, strictly.

    Args:
        kind: A dataclass whose fields are numbers, strings, booleans, lists of numbers or of
            strings, lists of either by name, or such dataclasses. A list of strings may also be
            one text, separated by commas.
        values: By field name.
        where: File or option, for the error.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type or range.
    """
    return _build(kind, values, where, "")


@lru_cache(maxsize=128)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: type[T], values: Mapping[str, Any], where: str, prefix: str) -> T:
    hints = _hints(typing.cast(Any, kind))
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            raise ConfigError(
                "unknown key",
                where=where,
                expected=f"one of {', '.join(sorted(hints))}" if not close else "",
                got=name,
                remedy=f"Did you mean {prefix}{close[0]}?" if close else "",
            )
        given[key] = _convert(hints[key], value, where, name)
    missing = [
        f.name
        for f in dataclasses.fields(typing.cast(Any, kind))
        if f.name not in given
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError("a key is missing", where=where, expected=prefix + missing[0])
    try:
        return kind(**given)
    except F2LError as error:
        raise ConfigError(
            error.what,
            where=f"{where}: {prefix}{error.where}".rstrip(": "),
            expected=error.expected,
            got=error.got,
            remedy=error.remedy,
        ) from error


def _convert(hint: Any, value: Any, where: str, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return _build(typing.cast(type[Any], hint), value, where, name + ".")
        fits = False
    elif hint is float:
        fits = _is_number(value)
        value = float(value) if fits else value
    elif hint == tuple[int, ...]:
        fits = isinstance(value, list | tuple) and all(type(n) is int for n in value)
        value = tuple(value) if fits else value
    elif hint == tuple[float, ...]:
        fits = isinstance(value, list | tuple) and all(map(_is_number, value))
        value = tuple(map(float, value)) if fits else value
    elif hint == tuple[str, ...]:
        texts = _texts(value)
        fits = texts is not None
        value = texts if fits else value
    elif hint == Mapping[str, tuple[str, ...]]:
        lists = {key: _texts(v) for key, v in value.items()} if isinstance(value, Mapping) else {}
        fits = isinstance(value, Mapping) and None not in lists.values()
        value = lists if fits else value
    elif hint == Mapping[str, tuple[float, ...]]:
        numbers = value.values() if isinstance(value, Mapping) else [None]
        fits = all(isinstance(v, list | tuple) and all(map(_is_number, v)) for v in numbers)
        value = {key: tuple(map(float, v)) for key, v in value.items()} if fits else value
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint)
    if not fits:
        label = "a section" if dataclasses.is_dataclass(hint) else f"a value of type {_show(hint)}"
        raise ConfigError(
            f"{name} has the wrong type",
            where=where,
            expected=label,
            got=json.dumps(value, default=str),
        )
    return value


def _texts(value: Any) -> tuple[str, ...] | None:
    """A list of texts, or one that is separated by commas; None for anything else."""
    if isinstance(value, str):
        return tuple(text.strip() for text in value.split(",") if text.strip())
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return tuple(value)
    return None


def _show(hint: Any) -> str:
    names = {
        tuple[int, ...]: "list of int",
        tuple[float, ...]: "list of numbers",
        tuple[str, ...]: "list of texts",
    }
    return names.get(hint) or str(getattr(hint, "__name__", hint))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
