"""A variational autoencoder on chunks of layers, fitted on the behaviour of networks.

Weights are cut into chunks within their layers. One small network is shared by all chunks; a
place embedding tells it which chunk it sees, the latent what the other chunks hold. It adds to
principal components, in which the fit starts: an encoder and a decoder that have learned nothing
are those of `PcaCodec` in weights standardised by layer. Under the output symmetry one coder
serves all output rows, so encoding and decoding commute with permutations of the outputs.

Reference:
    Schürholt et al.: Towards scalable and versatile weight space learning, arXiv 2406.09997
    (chunks as tokens). Kingma, Welling: Auto-encoding variational Bayes, arXiv 1312.6114,
    equation 10, here with one noise level for each coordinate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from f2l_fed.codec.behavioural_loss import Behaviour, divergence
from f2l_fed.codec.chunk_network import ChunkVae, LayerStream, centred
from f2l_fed.codec.codec import Codec, CodecKind, FitCodec
from f2l_fed.codec.config import ChunkVaeConfig
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.pca import PrincipalComponents, principal_components
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from f2l_fed.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkVaeCodec:
    """A fitted autoencoder, without its noise, and the whitening of its latents.

    Args:
        symmetry: Coordinates it works in.
        network: The autoencoder.
        common: Whitens the common part.
        rows: Whitens the output rows' deviations.
    """

    kind: ClassVar[str] = "chunk-vae"

    symmetry: OutputSymmetry
    network: ChunkVae
    common: PrincipalComponents
    rows: PrincipalComponents

    @property
    def shape(self) -> LatentShape:
        """Layout of a latent."""
        return LatentShape(
            common=len(self.common.scale),
            classes=self.symmetry.classes,
            width=len(self.rows.scale),
        )

    def encode(self, weights: Tensor) -> Tensor:
        """(n, D) float32 to (n, k) float32."""
        raw = self.network.encode(self.symmetry.split(weights))
        return self.shape.join(
            IsotypicParts(self.common.encode(raw.common), self.rows.encode(raw.rows))
        )

    def decode(self, latents: Tensor) -> Tensor:
        """(n, k) float32 to (n, D) float32."""
        white = self.shape.split(latents)
        raw = IsotypicParts(self.common.decode(white.common), self.rows.decode(white.rows))
        return self.symmetry.join(self.network.decode(raw))

    def displacement(self, start: Tensor, end: Tensor) -> Tensor:
        """See `f2l_fed.codec.Codec`."""
        return self.decode(end) - self.decode(start)

    def tensors(self) -> dict[str, Tensor]:
        """See `f2l_fed.codec.Codec`."""
        return {
            **with_prefix("network.", self.network.state_dict(keep_vars=True)),
            **with_prefix("common.", self.common.tensors()),
            **with_prefix("rows.", self.rows.tensors()),
        }

    @classmethod
    def from_tensors(cls, symmetry: OutputSymmetry, tensors: Mapping[str, Tensor]) -> ChunkVaeCodec:
        """See `f2l_fed.codec.Codec`."""
        network = ChunkVae(
            LayerStream.from_state(without_prefix("network.common.", tensors)),
            LayerStream.from_state(without_prefix("network.rows.", tensors)),
        )
        return cls(
            symmetry=symmetry,
            network=network.requires_grad_(False),
            common=PrincipalComponents.from_tensors(without_prefix("common.", tensors)),
            rows=PrincipalComponents.from_tensors(without_prefix("rows.", tensors)),
        )


def fit_chunk_vae(
    weights: Tensor,
    symmetry: OutputSymmetry,
    behaviour: Behaviour,
    config: ChunkVaeConfig,
    rng: torch.Generator,
) -> ChunkVaeCodec:
    """Fits a codec.

    Args:
        weights: (n, D) float32, n >= 2.
        symmetry: Coordinates to work in.
        behaviour: Behaviour of the weights.
        config: Sizes and schedule.
        rng: Draws everything random, the initial weights too.
    """
    parts = symmetry.split(weights)
    head = behaviour.layers[symmetry.output[0]] if symmetry.classes else behaviour.layers[:0]
    layers = torch.cat([behaviour.layers[symmetry.hidden], head])
    rows = parts.rows.flatten(0, 1)
    start = partial(LayerStream.starting_at_pca, chunk=config.chunk, hidden=config.hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        network = ChunkVae(
            start(parts.common, layers, config.common, centre=True),
            start(rows, head, config.rows, centre=False),
        )
    _train(network, weights, symmetry, behaviour, config, rng)
    network.requires_grad_(False)
    raw = network.encode(parts)
    return ChunkVaeCodec(
        symmetry=symmetry,
        network=network,
        common=principal_components(raw.common, config.common, centre=True),
        rows=principal_components(raw.rows.flatten(0, 1), config.rows, centre=False),
    )


def _train(
    network: ChunkVae,
    weights: Tensor,
    symmetry: OutputSymmetry,
    behaviour: Behaviour,
    config: ChunkVaeConfig,
    rng: torch.Generator,
) -> None:
    noise = [nn.Parameter(torch.full((len(s.down),), -2.5)) for s in (network.common, network.rows)]
    optimiser = torch.optim.AdamW(
        [*network.parameters(), *noise], lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps))
    for _ in range(config.steps):
        batch = weights[torch.randint(len(weights), (config.batch,), generator=rng)]
        parts = symmetry.split(batch)
        mean = network.encode(parts)
        copied = network.decode(
            IsotypicParts(
                mean.common + noise[0].exp() * _normal(mean.common, rng),
                mean.rows + noise[1].exp() * centred(_normal(mean.rows, rng)),
            )
        )
        x = behaviour.draw(config.inputs, rng)
        with torch.no_grad():
            meant = behaviour.predict(batch, x)
        loss: Tensor = (
            _squared_error(network, parts, copied) / batch.shape[1]
            + config.behaviour * divergence(meant, behaviour.predict(symmetry.join(copied), x))
            + config.kl * (_surplus(mean.common, noise[0]) + _surplus(mean.rows, noise[1]))
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _squared_error(network: ChunkVae, parts: IsotypicParts, copied: IsotypicParts) -> Tensor:
    common = (copied.common - parts.common) / network.common.scale
    rows = (copied.rows - parts.rows) / network.rows.scale
    return (common.square().sum() + rows.square().sum()) / len(parts.common)


def _surplus(mean: Tensor, log_noise: Tensor) -> Tensor:
    """Divergence of N(mean, noise²) from N(0, 1), summed over a network's coordinates, nats."""
    surplus: Tensor = mean.square() + (2 * log_noise).exp() - 1 - 2 * log_noise
    return surplus.sum() / (2 * len(mean))


def _normal(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng)


FitOnBehaviour = Callable[
    [Tensor, OutputSymmetry, Behaviour, ChunkVaeConfig, torch.Generator], Codec
]
"""A fit on weights and on their behaviour, such as `fit_chunk_vae`."""


def fit_on_target(fit: FitOnBehaviour) -> FitCodec:
    """A fit on a target's own behaviour, in the form that the registry asks for.

    Args:
        fit: Gets the default schedule with the sizes that are asked for.
    """

    def sized(
        weights: Tensor,
        symmetry: OutputSymmetry,
        target: Target,
        rng: torch.Generator,
        *,
        common: int,
        rows: int,
        work: Workspace = IN_MEMORY,  # noqa: ARG001 - a fit by gradients keeps its weights
    ) -> Codec:
        config = ChunkVaeConfig(common=common, rows=rows)
        return fit(weights, symmetry, Behaviour.of(target), config, rng)

    return sized


CHUNK_VAE = CodecKind(fit=fit_on_target(fit_chunk_vae), from_tensors=ChunkVaeCodec.from_tensors)
