"""Registries of implementations by name, each imported at its first use.

A configuration may check a name against a registry without the cost of what the name stands for:
reading a file of settings imports neither torch nor scipy.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class LazyRegistry(Mapping[str, T]):
    """A read-only mapping from names to entries that are imported when they are asked for.

    Modules are imported by name here, and nowhere else in a room: the names are constants of the
    registry's own module and lead to modules of its own room.

    Args:
        places: ``module:attribute`` of the entry, by its name.

    >>> functions = LazyRegistry({"root": "math:sqrt", "log": "math:log"})
    >>> "root" in functions, "sine" in functions, list(functions)
    (True, False, ['root', 'log'])
    >>> functions["root"](9)
    3.0
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._entries: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            module, _, attribute = self._places[name].partition(":")
            self._entries[name] = getattr(importlib.import_module(module), attribute)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._places!r})"
