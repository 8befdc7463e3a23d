"""The import of a user's own factory by its name, ``module:factory``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from f2l_fed.errors import TargetError


def imported(name: str, *, where: str) -> Callable[..., Any]:
    """The factory of a name.

    Args:
        name: ``module:factory``.
        where: The setting that names it.

    Raises:
        TargetError: If it can't be imported, or called.
    """
    module_name, _, attribute = name.partition(":")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise TargetError(
            "the target's factory can't be imported",
            where=where,
            got=f"{name!r} ({error})",
            remedy="Install the package that holds it, or set PYTHONPATH.",
        ) from error
    if not callable(factory):
        raise TargetError("the target's factory is not callable", where=where, got=name)
    return factory
