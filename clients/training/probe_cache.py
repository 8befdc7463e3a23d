"""A site's probes, made once for the same examples and the same anchor.

Every task asks for them, and the same gradient steps from the same anchor on the same examples end
at the same bits. So the latest are kept in the state folder, with a digest of all they were made
from; whatever is wrong with that file, they are made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clients.training.accepted_request import AcceptedRequest
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.local_training.probe import probe_update, support_set
from f2l_fed.local_training.site_streams import support_stream
from f2l_fed.wire.messages import ProbeRequest, Task

PROBES = "probes.safetensors"
"""Name of the file in the state folder."""


def probes_of(accepted: AcceptedRequest[ProbeRequest | Task]) -> Tensor:
    """(E, D) float32, a probe update for each episode, on its fixed few examples of the site."""
    site, frame, start = accepted.site, accepted.request.frame, accepted.anchor
    draws = (
        support_stream(frame.lineage, site.config.name, episode)
        for episode in range(frame.episodes)
    )
    x, y = site.train.x, site.train.y
    supports = [support_set(y, frame.shots, rng) for rng in draws]
    examples = [(x[support], y[support]) for support in supports]
    digest = digest_of(
        f"{torch.__version__} {frame.target} {frame.layout} {frame.probe}",
        [start, *(tensor for pair in examples for tensor in pair)],
    )
    path = site.state / PROBES
    if (cached := read_probes(path, digest)) is not None:
        return cached
    probes = torch.stack(
        [probe_update(accepted.target, start, x, y, frame.probe) for x, y in examples]
    )
    write_probes(path, probes, digest)
    return probes


def write_probes(path: Path, probes: Tensor, digest: str) -> None:
    """Replaces the probes in a file, together with the digest of all that they were made from."""
    write_atomically(path, save({"probes": probes}, {"made_from": digest}), mode=0o600)


def read_probes(path: Path, digest: str) -> Tensor | None:
    """The probes in a file; None if they were made from anything else or can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            same = (file.metadata() or {}).get("made_from") == digest
            probes: Tensor | None = file.get_tensor("probes") if same else None
    except (OSError, SafetensorError):
        return None
    return probes


def digest_of(description: str, tensors: Sequence[Tensor]) -> str:
    """SHA-256 of all that probes are made from: a description and tensors."""
    digest = sha256(description.encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
