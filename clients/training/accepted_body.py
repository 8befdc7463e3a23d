"""The bodies that a site goes along with: of one lineage, and never far from the last one.

A request names the digests of all bodies of its lineage. The first is rebuilt by the site; of later
ones it keeps the newest that it has accepted, and another has to share its lineage's beginning and
to lie near it. A centre that would rather give one site a body of its own has to lie in every later
request too, and can move it by no more than the policy's bound a round.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clients.site.site import Site
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.probe import first_anchor
from f2l_fed.targets.body import Body, body_digest, length_of
from f2l_fed.wire.messages import ProbeRequest, Task

ACCEPTED_BODY = "body.safetensors"
"""Name of the file in the state folder."""


def allow_body(site: Site, request: ProbeRequest | Task, body: Body) -> None:
    """Accepts the body of a request and keeps it, or refuses it.

    Raises:
        PolicyRefusal: If there is none, its digest is not the last of its chain, the chain does not
            begin with the lineage's first body, or the body is too far from the last one.
    """
    sent, chain = request.anchor, request.chain
    if sent is None or not chain:
        raise PolicyRefusal("body-missing")
    if body_digest(sent) != chain[-1]:
        raise PolicyRefusal("body-not-in-its-chain")

    def first() -> Tensor:
        return first_anchor(body.network, body, request.frame.lineage)

    path, limit = site.state / ACCEPTED_BODY, site.config.policy.maximum_body_change
    before = _read(path, body)
    if len(chain) == 1:
        # Another processor may round the last digits differently.
        if not torch.allclose(sent, first(), rtol=1e-4, atol=1e-6):
            raise PolicyRefusal("body-not-rebuilt")
    elif before is None or not before[0]:
        # A newcomer knows the first body alone.
        _require_near(sent, first(), (len(chain) - 1) * limit)
    else:
        known, last = before
        common = len(_common(known, chain))
        if not common:
            raise PolicyRefusal("body-of-another-lineage")
        links = len(known) - common + len(chain) - common
        _require_near(sent, last, links * limit)
    if before is None or before[0] != chain:
        write_atomically(path, save({"body": sent}, {"chain": json.dumps(chain)}), mode=0o600)


def _require_near(body: Tensor, other: Tensor, limit: float) -> None:
    if not float((body - other).norm()) <= limit * length_of(other):
        raise PolicyRefusal("body-changed-too-much")


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> list[str]:
    """The digests that two chains begin with."""
    shared = []
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        shared.append(mine)
    return shared


def _read(path: Path, body: Body) -> tuple[tuple[str, ...], Tensor] | None:
    """The chain and the body that the site accepted last; None where there is none to read."""
    try:
        with safe_open(path, framework="pt") as file:
            chain = tuple(json.loads((file.metadata() or {})["chain"]))
            last: Tensor = file.get_tensor("body")
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return (chain, last) if last.shape == (body.layout.size,) else None
