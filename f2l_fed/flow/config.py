"""What decides how a model on latents is built and fitted."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.core.validation import choice, positive, require, share
from f2l_fed.flow.couplings import COUPLINGS, LARGEST
from f2l_fed.flow.sources import SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """How the velocity field is built and fitted.

    Args:
        source: Where the flow starts, "prior", "gaussian" or "kaiming".
        coupling: Which start goes with which target, "independent", "ot" or "conditional-ot".
        width: Hidden units.
        depth: Blocks.
        steps: Largest number of gradient steps.
        batch: Examples a step.
        lr: Peak learning rate of AdamW; falls to zero along a cosine.
        weight_decay: Of AdamW.
        dropout: Share of examples whose context is withheld; with 1 no context is ever seen.
        held_out: Share of records kept aside to choose the best weights by.
        check_every: Steps between looks at the records kept aside.
        patience: Looks without an improvement after which the fit ends.
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

    def __post_init__(self) -> None:
        choice(self, "source", SOURCES)
        choice(self, "coupling", COUPLINGS)
        require(self.width >= 2, self, "width", ">= 2")
        positive(self, "depth", "batch", "lr", "check_every", "patience")
        require(self.steps >= 0, self, "steps", ">= 0")
        require(self.weight_decay >= 0, self, "weight_decay", ">= 0")
        share(self, "held_out")
        require(0 <= self.dropout <= 1, self, "dropout", ">= 0 and <= 1")
        # An assignment costs the cube of the batch.
        require(
            self.coupling == "independent" or self.batch <= LARGEST,
            self,
            "batch",
            f"<= {LARGEST} with the coupling {self.coupling!r}",
        )
