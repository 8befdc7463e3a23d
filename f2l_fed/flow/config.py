"""Settings of the models on latents."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.validation import choice, positive, require, share
from f2l_fed.flow.couplings.registry import COUPLINGS
from f2l_fed.flow.sources.registry import SOURCES

_LARGEST_ASSIGNMENT = 512
"""Examples that a coupling other than the independent one pairs at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Size and schedule of a velocity field.

    Args:
        source: Distribution that the flow starts from, "prior", "gaussian" or "kaiming".
        coupling: Pairing of starts with targets, "independent", "ot" or "conditional-ot".
        width: Hidden units.
        depth: Blocks.
        steps: Largest number of gradient steps.
        batch: Examples a step.
        lr: Peak learning rate of AdamW; falls to zero along a cosine.
        weight_decay: Of AdamW.
        dropout: Share of examples whose context is withheld; with 1 no context is ever seen.
        held_out: Share of sites for validation, by which the best weights are chosen.
        check_every: Steps between validations.
        patience: Validations without an improvement after which the fit ends.
        look: Validations after which it ends if none has been better than the start, which for
            the source "prior" is a normal distribution around the prediction.
    """

    source: str = "prior"
    coupling: str = "independent"
    width: int = 128
    depth: int = 2
    steps: int = 600
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    held_out: float = 0.15
    check_every: int = 50
    patience: int = 5
    look: int = 2

    def __post_init__(self) -> None:
        choice(self, "source", SOURCES)
        choice(self, "coupling", COUPLINGS)
        require(self.width >= 2, self, "width", ">= 2")
        positive(self, "depth", "batch", "lr", "check_every", "patience", "look")
        require(self.steps >= 0, self, "steps", ">= 0")
        require(self.weight_decay >= 0, self, "weight_decay", ">= 0")
        share(self, "held_out")
        require(0 <= self.dropout <= 1, self, "dropout", ">= 0 and <= 1")
        # An assignment costs the cube of the batch.
        require(
            self.coupling == "independent" or self.batch <= _LARGEST_ASSIGNMENT,
            self,
            "batch",
            f"<= {_LARGEST_ASSIGNMENT} with the coupling {self.coupling!r}",
        )
