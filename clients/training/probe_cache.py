"""A site's probes, made once for the same examples and the same anchor.

Every task asks for them, and the same gradient steps from the same anchor on the same examples end
at the same bits. So the latest are kept in the state folder, with a digest of all they were made
from; whatever is wrong with that file, they are made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clients.site.site import Site
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.random_streams import generator_for
from f2l_fed.local_training.probe import anchor, probe_update, support_set
from f2l_fed.targets import Target
from f2l_fed.wire.messages import ProbeRequest, Task

KEPT = "probes.safetensors"


def probes_of(site: Site, request: ProbeRequest | Task, target: Target) -> Tensor:
    """(E, D) float32, a probe update for each episode, on its fixed few examples of the site."""
    frame, train = request.frame, site.train
    start = anchored(request, target)
    draws = (
        generator_for(frame.lineage, site.config.name, "probe", episode)
        for episode in range(frame.episodes)
    )
    supports = [support_set(train.y, frame.shots, rng) for rng in draws]
    examples = [(train.x[support], train.y[support]) for support in supports]
    made_from = digest_of(
        f"{torch.__version__} {frame.target} {frame.layout} {frame.probe}",
        [start, *(tensor for pair in examples for tensor in pair)],
    )
    path = site.state / KEPT
    if (kept := read_kept(path, made_from)) is not None:
        return kept
    probes = torch.stack([probe_update(target, start, x, y, frame.probe) for x, y in examples])
    keep(path, probes, made_from)
    return probes


def anchored(request: ProbeRequest | Task, target: Target) -> Tensor:
    """(D,) float32, where the probes that a request asks for start."""
    return anchor(target, request.frame.lineage) if request.anchor is None else request.anchor


def keep(path: Path, probes: Tensor, made_from: str) -> None:
    """Replaces what a file keeps: probes, and a digest of all that they were made from."""
    write_atomically(path, save({"probes": probes}, {"made_from": made_from}), mode=0o600)


def read_kept(path: Path, made_from: str) -> Tensor | None:
    """The probes that `keep` wrote; None if they were made from anything else or can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            same = (file.metadata() or {}).get("made_from") == made_from
            probes: Tensor | None = file.get_tensor("probes") if same else None
    except (OSError, SafetensorError):
        return None
    return probes


def digest_of(said: str, tensors: Sequence[Tensor]) -> str:
    """SHA-256 of what probes were made from, in words and in numbers."""
    digest = sha256(said.encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
