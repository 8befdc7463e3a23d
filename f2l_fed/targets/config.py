"""Settings of the target network."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.validation import choice, require

ADAPTED = ("head", "all")
"""The parts of a network that can be generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """The network that is generated.

    Args:
        name: A known target or ``module:factory``; "auto", the default of new federations, is
            replaced by a built-in one that suits the inputs.
        input_shape: Shape of one input, e.g. [1, 28, 28]; a simulation takes the data's.
        classes: Number of outputs; a simulation takes the scenario's. Where heads are generated,
            the most classes that a site may have, whose network has an output for each of its own.
        adapt: The part that is generated for a site: "head", the output layer on a body that all
            sites train together, or "all", the whole network; with shared labels always "all".
    """

    name: str = "cnn-xs"
    input_shape: tuple[int, ...] = (1, 28, 28)
    classes: int = 5
    adapt: str = "all"

    def __post_init__(self) -> None:
        require(
            bool(self.input_shape) and min(self.input_shape) > 0, self, "input_shape", "sizes > 0"
        )
        require(self.classes >= 2, self, "classes", ">= 2")
        choice(self, "adapt", ADAPTED)
