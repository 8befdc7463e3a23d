"""Target networks, which are generated for a site.

A target is named in the configuration: one of the built-in names, a name that an installed
package registers under the entry point group ``f2l_fed.targets``, or ``module:factory``.
"""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = [
    "Target",
    "build_target",
    "known_targets",
]

if TYPE_CHECKING:
    from f2l_fed.targets.build import build_target, known_targets
    from f2l_fed.targets.target import Target
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.targets.build": ["build_target", "known_targets"],
            "f2l_fed.targets.target": ["Target"],
        },
    )
