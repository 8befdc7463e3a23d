"""A dishonest centre: requests of any content, given to the real site app, and what it reads.

The next attack: change `FRAME` with `dataclasses.replace`, make networks with `reading_network`
or `TARGET.layout.flatten`, send them with `ask_probe` or `ask_task`, and give the changes that come
back to `images_in`. Where the packing itself would object, alter the records that it has made.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from clients.client_app import app
from f2l_fed.data import load_dataset
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import PROBE_ACTION, TASK_ACTION, ProbeRequest, Task
from f2l_fed.wire.packing import pack_probe_request, pack_task, unpack_probe_reply, unpack_update
from tests.support.loopback import LoopbackGrid
from tests.support.sites import frame

ONE_STEP = Recipe(steps=1, lr=1.0, momentum=0.0, max_gradient_norm=0.0)
FRAME = frame()
TARGET = build_target(FRAME.target, FRAME.input_shape, FRAME.classes)


def reading_network(*, head: float, seed: int = 0) -> Tensor:
    """(D,) float32: hidden units of one direction with biases apart, equal columns in the output.

    The change of two neighbouring units differs by the examples between their biases alone.
    """
    draws = torch.Generator().manual_seed(seed)
    public = torch.from_numpy(load_dataset("digits").x[900:]).flatten(1)
    direction = torch.rand(public.shape[1], generator=draws)
    shares = torch.linspace(0.0, 0.99, 32)
    output = torch.randn(FRAME.classes, 1, generator=draws).expand(-1, 32)
    weights = {
        "1.weight": direction.expand(32, -1),
        "1.bias": -(public @ direction).quantile(shares),
        "3.weight": head * output,
        "3.bias": torch.zeros(FRAME.classes),
    }
    return TARGET.layout.flatten(weights)


def ask(site: Path, content: RecordDict, action: str) -> RecordDict:
    """The site's answer to any content."""
    grid = LoopbackGrid(app, {7: {"site": str(site)}})
    (reply,) = grid.send_and_receive([Message(content, 7, action)])
    return reply.content


def ask_probe(site: Path, anchor: Tensor | None, **changes: object) -> RecordDict:
    """The site's answer to a request for probes with changes of the frame."""
    request = ProbeRequest(frame=dataclasses.replace(FRAME, **changes), anchor=anchor)
    return ask(site, pack_probe_request(request), PROBE_ACTION)


def ask_task(
    site: Path, *candidates: Tensor, recipe: Recipe = ONE_STEP, release: str = "00001", **of: object
) -> RecordDict:
    """The site's answer to a task with one candidate an episode; ``of`` are the task's fields."""
    task = Task(
        frame=FRAME,
        anchor=None,
        round=1,
        release=release,
        recipe=recipe,
        candidates=tuple({"prior": candidate} for candidate in candidates),
    )
    return ask(site, pack_task(dataclasses.replace(task, **of)), TASK_ACTION)


def probes_in(content: RecordDict) -> Tensor:
    """(E, D) float32, the probes in an answer."""
    return unpack_probe_reply(content, TARGET.layout).probes


def weights_in(content: RecordDict) -> Tensor:
    """(E, D) float32, the networks in an answer."""
    return unpack_update(content, TARGET.layout).weights


def images_in(changes: Tensor) -> Tensor:
    """(n, pixels) float32: an image between each two neighbouring units of each change."""
    found = []
    for change in changes.double():
        tensors = TARGET.layout.unflatten(change)
        weight, bias = tensors["1.weight"], tensors["1.bias"]
        weight = torch.cat([weight, weight[:-1] - weight[1:]])
        bias = torch.cat([bias, bias[:-1] - bias[1:]])
        found.append(weight[bias.abs() > 1e-7] / bias[bias.abs() > 1e-7, None])
    return torch.cat(found)


def read_at(images: Tensor, private: Tensor, decibel: float) -> int:
    """Number of private images, (n, pixels), that are among the images at this ratio or better."""
    if not len(images):
        return 0
    error = (torch.cdist(private.double(), images) ** 2).min(1).values / private.shape[1]
    return int((error < float(private.max()) ** 2 * math.pow(10, -decibel / 10)).sum())
