"""Messages between server and sites, small and of every kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from torch import Tensor

from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe, SharedConfig
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import Frame, ProbeReply, ProbeRequest, Task, Update
from tests.support.small import rng

LAYOUT = WeightLayout(("w", "b"), ((2, 3), (2,)))
BODY = WeightLayout(("conv", "scale"), ((3, 4), (1,)))


def vector(seed: int, layout: WeightLayout = LAYOUT) -> Tensor:
    """(D,) float32, random."""
    return torch.randn(layout.size, generator=rng(seed))


FRAME = Frame(
    lineage="mlp/3",
    target="mlp",
    classes=2,
    input_shape=(3,),
    layout=LAYOUT.digest,
    episodes=3,
    shots=5,
    probe=Recipe(steps=10, lr=0.05, momentum=0.9),
)
HEADS = Frame(
    lineage="cnn-xs/3",
    target="cnn-xs",
    classes=2,
    input_shape=(3,),
    layout=LAYOUT.digest,
    episodes=2,
    shots=5,
    probe=Recipe(steps=0),
    adapt="head",
    body_layout=BODY.digest,
    episodic=EpisodesConfig(steps=24, turns=False),
    head=HeadConfig(pull=2.0),
)
TASK = Task(
    frame=FRAME,
    anchor=vector(6),
    round=4,
    release="0003",
    recipe=Recipe(steps=15, lr=0.03, momentum=0.9, batch=50, max_gradient_norm=2.5),
    candidates=({"prior": vector(0), "sample-0": vector(1)}, {"prior": vector(4)}),
)
WITH_BODY = Task(
    frame=HEADS,
    anchor=vector(6, BODY),
    round=4,
    release="0003",
    recipe=Recipe(steps=15),
    candidates=({"prior": vector(0), "sample-0": vector(1)},),
    body=vector(7, BODY),
    chain=("ab" * 32, "cd" * 32),
    temperatures=((1, 0.45), (5, 0.55)),
    keep=3,
)
SHARED = replace(
    TASK,
    frame=replace(FRAME, shared_labels=True, shared=SharedConfig(lr=0.2, early_rounds=2)),
    candidates=({"prior": vector(0), "global_mean": vector(1)},),
)
UPDATE = Update(
    site="a",
    round=4,
    chosen=("sample-0", "prior"),
    weights=torch.stack([vector(2), vector(7)]),
    probes=torch.stack([vector(3), vector(8), vector(9)]),
    numbers={"examples": 40.0, "loss_after": 0.25},
)


def same(a: Any, b: Any) -> bool:
    """Equality of messages that hold tensors."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Task | Update | ProbeReply | ProbeRequest):
        return all(same(getattr(a, name), getattr(b, name)) for name in type(a).__slots__)
    return bool(a == b)


def objects_of(content: RecordDict) -> int:
    """Number of Flower's objects of a message with this content."""
    with no_object_id_recompute():
        return 1 + sum(1 for _ in iterate_object_tree(get_object_tree(content)))
