"""The shapes of a generator's tensors, checked where a file has come from somewhere else."""

from __future__ import annotations

from torch import Tensor

from f2l_fed.codec.pca import PcaCodec
from f2l_fed.generator.generator import Generator


def require_shapes(generator: Generator) -> None:
    """Raises ValueError unless all tensors belong to the symmetry, and so to the target.

    Args:
        generator: Of a single family, with a codec of principal components.
    """
    for name, (tensor, shape) in _wanted(generator).items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)} in place of {shape}")


def _wanted(generator: Generator) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """The tensors with the shapes that they should have, by name."""
    prior, codec, symmetry = generator.prior, generator.codec, generator.prior.symmetry
    assert isinstance(codec, PcaCodec)
    size, row = symmetry.size, symmetry.output.shape[1]
    gate, bins = prior.gate, len(prior.gate.likeness)
    wanted: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "anchor": (prior.anchor, (size,)),
        "mean": (generator.mean, (size,)),
        "spread": (generator.spread, (codec.shape.size,)),
        "around": (prior.anchor if prior.around is None else prior.around, (size,)),
        "likeness": (gate.likeness, (bins,)),
        "factors": (gate.factors, (bins,)),
        "length": (gate.length, ()),
    }
    if len(gate.centroids):
        wanted["centroids"] = (gate.centroids, (len(gate.centroids), row))
    maps = (("common", prior.common, len(symmetry.hidden) + row), ("rows", prior.rows, row))
    for name, map_, length in maps:
        rank = map_.left.shape[-1]
        wanted |= {
            f"{name}.x_mean": (map_.x_mean, (length,)),
            f"{name}.y_mean": (map_.y_mean, (length,)),
            f"{name}.left": (map_.left, (length, rank)),
            f"{name}.right": (map_.right, (rank, length)),
        }
    for name, part, length in (("codec", codec.common, size), ("codec rows", codec.rows, row)):
        kept = min(len(part.basis), len(part.scale))
        wanted |= {
            f"{name}.mean": (part.mean, (length,)),
            f"{name}.basis": (part.basis, (kept, length)),
        }
    return wanted
