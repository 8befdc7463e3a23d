"""Package exports that are imported at their first use.

A package whose ``__init__`` imports its modules eagerly makes each of them cost what all of them
import, torch among it. With `lazy_exports` the package still offers its names, and a module of it
costs its own imports only. The whole ``__init__.py`` of such a package::

    \"\"\"The weight zoo.\"\"\"

    from typing import TYPE_CHECKING

    from f2l_fed.core.lazy_exports import lazy_exports

    __all__ = ["Query", "Record", "Zoo"]

    if TYPE_CHECKING:
        from f2l_fed.zoo.reading.query import Query
        from f2l_fed.zoo.records import Record
        from f2l_fed.zoo.zoo import Zoo
    else:
        __getattr__, __dir__ = lazy_exports(
            __name__,
            {
                "f2l_fed.zoo.reading.query": ["Query"],
                "f2l_fed.zoo.records": ["Record"],
                "f2l_fed.zoo.zoo": ["Zoo"],
            },
        )

Type checkers read the imports of the first branch and see every name with its type (and refuse
unknown names, because they don't see ``__getattr__``); the interpreter takes the second branch.
``tests/unit/f2l_fed/core/test_lazy_exports.py`` checks of every such package that ``__all__``, the
imports and the mapping agree.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def lazy_exports(
    package: str, names_by_module: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes the functions ``__getattr__`` and ``__dir__`` of a package with lazy exports.

    Args:
        package: ``__name__`` of the package.
        names_by_module: The exported names by the full name of the module that defines them. A
            name must not be that of one of the package's own modules: an import of the module
            would set the attribute, and ``__getattr__`` would no longer be asked.

    Returns:
        ``__getattr__`` and ``__dir__``, to be assigned in the package.

    Raises:
        ValueError: If two modules export one name, or a name is that of a module.
    """
    module_of: dict[str, str] = {}
    for module, names in names_by_module.items():
        for name in names:
            if name in module_of:
                raise ValueError(f"{package}.{name} is exported by {module_of[name]} and {module}")
            if f"{package}.{name}" in names_by_module:
                raise ValueError(f"{package}.{name} is both an export and a module of the package")
            module_of[name] = module

    def get_export(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value: object = getattr(importlib.import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get_export, list_names
