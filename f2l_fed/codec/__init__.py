"""Codecs: weights to whitened latents and back."""

from f2l_fed.codec.behavioural_loss import Behaviour
from f2l_fed.codec.chunk_vae import ChunkVaeCodec, ChunkVaeConfig, fit_chunk_vae
from f2l_fed.codec.codec import Codec
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.pca import PcaCodec, fit_pca
from f2l_fed.codec.pca_vae import PcaVaeCodec, fit_pca_vae
from f2l_fed.codec.registry import CODECS
from f2l_fed.codec.round_trip import (
    accuracy_kept,
    agreement,
    functional_round_trip,
    unseen_copies,
)
from f2l_fed.targets.synthetic_inputs import synthetic_inputs

__all__ = [
    "CODECS",
    "Behaviour",
    "ChunkVaeCodec",
    "ChunkVaeConfig",
    "Codec",
    "LatentShape",
    "PcaCodec",
    "PcaVaeCodec",
    "accuracy_kept",
    "agreement",
    "fit_chunk_vae",
    "fit_pca",
    "fit_pca_vae",
    "functional_round_trip",
    "synthetic_inputs",
    "unseen_copies",
]
