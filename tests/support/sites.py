"""Sites on the handwritten digits, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from f2l_fed.data import load_dataset
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import Frame

PROBE = Recipe(steps=3)


def digits_site(folder: Path, *, per_class: int = 12, classes: int = 3, more: str = "") -> Path:
    """A site with the first examples of the first classes; ``more`` is added to its file."""
    pool = load_dataset("digits")
    rows = np.concatenate([np.flatnonzero(pool.y == label)[:per_class] for label in range(classes)])
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "train.npz", x=pool.x[rows], y=pool.y[rows])
    path = folder / "site.toml"
    path.write_text(f'name = "north"\ndata = "train.npz"\n{more}')
    return path


def frame(target: str = "mlp", classes: int = 3) -> Frame:
    """What a server of such sites says in every request."""
    shape = tuple(load_dataset("digits").x.shape[1:])
    return Frame(
        lineage="test/0",
        target=target,
        classes=classes,
        input_shape=shape,
        layout=build_target(target, shape, classes).layout.digest,
        episodes=2,
        shots=3,
        probe=PROBE,
    )
