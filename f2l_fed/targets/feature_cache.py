"""The features of a site's examples, made once and kept in its state folder.

What was made from private examples is as private as they are: the file is for its owner's eyes
alone. It has the digest of examples and backbone, so features of changed ones are made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.placement import CPU
from f2l_fed.errors import DataError
from f2l_fed.targets.backbone import InstalledBackbone, Progress, features_of

FEATURES = "features.safetensors"
"""Name of the file in the state folder."""


def cached_features(
    state: Path,
    backbone: InstalledBackbone,
    parts: Sequence[Tensor],
    progress: Progress | None = None,
    make: Callable[[Tensor, Progress | None], Tensor] | None = None,
    device: torch.device = CPU,
) -> list[Tensor]:
    """The features of the parts of a site's examples.

    Args:
        state: The state folder, which exists.
        backbone: The backbone; its network is not built where the features are known.
        parts: (n, *input_shape) float32 each.
        progress: Told while features are made.
        make: Makes the backbone's features of examples; its network if None.
        device: What this network computes on.

    Returns:
        (n, F) float32 for each part, or with an adapted part the values at the cut, (n, C).

    Raises:
        TargetError: If the network's code does not suit the backbone's file.
        DataError: If features are not finite.
    """
    path, sizes = state / FEATURES, [len(part) for part in parts]
    key = _digest(backbone, parts)
    if (kept := _read(path, key, sum(sizes))) is None:
        make = make or partial(features_of, backbone.front(), device=device)
        kept = make(torch.cat(list(parts)), progress)
        if strange := int((~kept.isfinite()).any(1).sum()):
            raise DataError(
                f"the backbone's features of {strange} of {len(kept)} examples are not finite",
                where=backbone.config.file,
                remedy="Leave these examples out, or use another backbone.",
            )
        write_atomically(path, save({"features": kept}, {"made_from": key}), mode=0o600)
    return list(kept.split(sizes))


def _digest(backbone: InstalledBackbone, parts: Sequence[Tensor]) -> str:
    made_by = f"{torch.__version__} {backbone.part.digest} {backbone.config.network}"
    digest = sha256(made_by.encode())
    for part in parts:
        digest.update(f"{tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path, key: str, count: int) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("made_from") != key:
                return None
            kept: Tensor = file.get_tensor("features")
    except (OSError, SafetensorError):
        return None
    return kept if len(kept) == count else None
