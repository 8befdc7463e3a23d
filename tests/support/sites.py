"""Sites on the handwritten digits, for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from f2l_fed.data import load_dataset
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.local_training.probe import first_anchor
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body, body_digest
from f2l_fed.wire.messages import Frame, Task

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


BODY = Body.of(build_target("mlp", (1, 8, 8), 3))
"""The body of a federation of such sites."""

FIRST_BODY = first_anchor(BODY.network, BODY, "test/0")


def body_frame(**changes: object) -> Frame:
    """What a server of such sites says in every request where all sites share a body."""
    on_body = Frame(
        lineage="test/0",
        target="mlp",
        classes=3,
        input_shape=(1, 8, 8),
        layout=BODY.head.layout.digest,
        episodes=2,
        shots=4,
        probe=PROBE,
        adapt="head",
        body_layout=BODY.layout.digest,
        episodic=EpisodesConfig(first=4, steps=4, support=2, query=3),
        head=HeadConfig(pairs=2),
    )
    return dataclasses.replace(on_body, **changes)


def body_task(*bodies: Tensor, **changes: object) -> Task:
    """A task to train the last of a lineage's bodies, of which the first one is known.

    With more than that, the one before the last is the release's, with a head generated for it.
    """
    chain = (FIRST_BODY, *bodies)
    task = Task(
        frame=body_frame(),
        anchor=chain[-1],
        round=len(chain),
        release=f"{len(bodies):05}" if bodies else "",
        recipe=Recipe(steps=2, batch=10),
        candidates=({"prior": torch.zeros(BODY.head.layout.size)},) if bodies else (),
        body=chain[-2] if bodies else None,
        chain=tuple(map(body_digest, chain)),
    )
    return dataclasses.replace(task, **changes)
