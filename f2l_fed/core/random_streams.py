"""Random streams: an independent one for every purpose, seeded by names instead of call order."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(*names: str | int) -> int:
    """A 62-bit seed from names, e.g. lineage, round, site and purpose.

    >>> seed_for("a", 1) == seed_for("a", 1) != seed_for("a", 2)
    True
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def generator_for(*names: str | int) -> torch.Generator:
    """A torch generator with the seed of `seed_for`."""
    # Imported here, since the settings of simulated data use numpy's streams alone.
    import torch

    return torch.Generator().manual_seed(seed_for(*names))


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator for one purpose, which stays the same when other draws are added.

    Args:
        seed: The run's seed, any integer.
        purpose: Names of the purpose, from the general to the particular.

    Returns:
        A fresh generator, the same one for the same arguments on every machine.

    >>> bool(stream(0, "site", 1).random() == stream(0, "site", 1).random())
    True
    >>> bool(stream(0, "site", 1).random() == stream(0, "site", 2).random())
    False
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
