"""Codecs: weights to whitened latents and back."""

from f2l_fed.codec.latent import LatentShape
from f2l_fed.codec.pca import PcaCodec, fit_pca

__all__ = ["LatentShape", "PcaCodec", "fit_pca"]
