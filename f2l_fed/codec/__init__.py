"""Codecs: weights to whitened latents and back."""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

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
    "unseen_copies",
]

if TYPE_CHECKING:
    from f2l_fed.codec.behavioural_loss import Behaviour
    from f2l_fed.codec.chunk_vae import ChunkVaeCodec, fit_chunk_vae
    from f2l_fed.codec.codec import Codec
    from f2l_fed.codec.config import ChunkVaeConfig
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
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.codec.behavioural_loss": ["Behaviour"],
            "f2l_fed.codec.chunk_vae": ["ChunkVaeCodec", "fit_chunk_vae"],
            "f2l_fed.codec.codec": ["Codec"],
            "f2l_fed.codec.config": ["ChunkVaeConfig"],
            "f2l_fed.codec.latent_shape": ["LatentShape"],
            "f2l_fed.codec.pca": ["PcaCodec", "fit_pca"],
            "f2l_fed.codec.pca_vae": ["PcaVaeCodec", "fit_pca_vae"],
            "f2l_fed.codec.registry": ["CODECS"],
            "f2l_fed.codec.round_trip": [
                "accuracy_kept",
                "agreement",
                "functional_round_trip",
                "unseen_copies",
            ],
        },
    )
