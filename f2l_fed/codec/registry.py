"""The registry of codecs; another one takes a file with a `CodecKind` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.codec.codec import CodecKind

CODECS: Mapping[str, CodecKind] = LazyRegistry(
    {
        "pca": "f2l_fed.codec.pca:PCA",
        "chunk-vae": "f2l_fed.codec.chunk_vae:CHUNK_VAE",
        "pca-vae": "f2l_fed.codec.pca_vae:PCA_VAE",
    }
)
