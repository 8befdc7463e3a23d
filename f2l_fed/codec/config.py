"""Settings of the codecs."""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.codec.registry import CODECS
from f2l_fed.core.validation import choice, positive, require


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """The latent space.

    Args:
        kind: A key of `f2l_fed.codec.CODECS`.
        common: Largest number of components of the weights that all outputs share.
        rows: Largest number of components of one output's weights.
    """

    kind: str = "pca"
    common: int = 64
    rows: int = 32

    def __post_init__(self) -> None:
        choice(self, "kind", CODECS)
        positive(self, "common", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkVaeConfig:
    """Size and schedule of a chunk VAE.

    Args:
        common: Largest number of latent coordinates of what all outputs share.
        rows: Largest number of latent coordinates of one output.
        chunk: Weights in a chunk.
        hidden: Hidden units of the network that all chunks share.
        steps: Gradient steps.
        batch: Networks a step.
        inputs: Fresh inputs a step, on which they are compared.
        lr: Peak learning rate of AdamW; falls to zero along a cosine.
        weight_decay: Of AdamW.
        behaviour: Weight of the divergence of predictions (nats), beside the squared error of
            standardised weights.
        kl: Weight of the divergence of latents from the normal distribution (nats).
    """

    common: int = 64
    rows: int = 32
    chunk: int = 32
    hidden: int = 64
    steps: int = 300
    batch: int = 32
    inputs: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.01
    behaviour: float = 1.0
    kl: float = 1e-4

    def __post_init__(self) -> None:
        positive(self, "common", "rows", "chunk", "hidden", "batch", "inputs", "lr")
        for name in ("steps", "weight_decay", "behaviour", "kl"):
            require(getattr(self, name) >= 0, self, name, ">= 0")
