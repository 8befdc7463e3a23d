"""Target networks: what is generated for a site.

A target is named in the configuration: one of the built-in names, a name that an installed
package registers under the entry point group ``f2l_fed.targets``, or ``module:factory``.
"""

from f2l_fed.targets.registry import build_target, known_targets
from f2l_fed.targets.target import Target

__all__ = ["Target", "build_target", "known_targets"]
