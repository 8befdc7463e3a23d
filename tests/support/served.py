"""A federation with a release behind its real gateway, and sites that ask it for networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from clients.onboarding.kit import read_kit
from clients.site.site import open_site
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite, starts
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.site_streams import NO_ROUND, steps_stream
from f2l_fed.local_training.temperature import temperature_of
from f2l_fed.wire.reply_bound import reply_bound
from server.cluster.held_out import served_release
from server.federation.folder import Federation
from server.generator.network_service import NetworkService
from server.membership.network_api import Networks
from tests.support.commands import in_process
from tests.support.conducted import after_rounds
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.small_federation import ANY_RELEASE, FEW

SETTINGS = (*FEW, *ANY_RELEASE, "local.steps=5", "local.batch=10", "head.pairs=2")
OF_HEADS = ("target.adapt=head", "episodes.first=3", "episodes.steps=2")
OF_ALL = ("target.adapt=all",)
TO_SITES = ("release.to_sites=true",)
ENOUGH = 9
"""Sites enough for a release to be given away."""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A federation behind its gateway.

    Args:
        federation: Its folder, with a release.
        gateway: The gateway.
        service: The service behind it.
    """

    federation: Federation
    gateway: RunningGateway
    service: NetworkService

    def joined(self, name: str) -> Path:
        """The ``site.toml`` of a site that came with a kit and some of a training site's data."""
        kit = self.gateway.kit(name)
        fingerprint = read_kit(kit, now=now()).short_fingerprint
        folder = self.gateway.root.parent / name
        data = next((self.federation.root / "sites").glob("*/train.npz"))
        done = in_process(
            "f2l-site", "init", str(kit), "--data", str(data), "--into", str(folder),
            "--fingerprint", fingerprint,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return folder / "site.toml"

    def measured(self, site: Path, release: str) -> tuple[torch.Tensor, torch.Tensor]:
        return measured(self.federation, site, release)


def measured(federation: Federation, site: Path, release: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What evaluation says that a site gets: the start of its network, and the network."""
    opened, served = open_site(site), served_release(federation, release)
    train, rest = opened.train, opened.validation
    held_out = HeldOutSite(name=opened.config.name, train=(train.x, train.y), test=(rest.x, rest.y))
    start = starts(served, held_out)[GENERATED]
    pull, steps = served.pulls(held_out).get(GENERATED, 0.0), federation.config.local
    batches = steps_stream(served.lineage, NO_ROUND, held_out.name)
    target = served.network_of(held_out)
    network = finetune(target, start, train.x, train.y, steps, batches, pull=pull)
    return start, target.tempered(network, temperature_of(served.temperatures, train.y))


@contextmanager
def served(
    root: Path, *, adapt: tuple[str, ...], rounds: int = 1, sites: int = 6
) -> Iterator[Served]:
    federation = after_rounds(root, rounds, sites=sites, settings=(*SETTINGS, *adapt))
    with behind_gateway(federation) as center:
        yield center


@contextmanager
def behind_gateway(federation: Federation, *, offered: bool = True) -> Iterator[Served]:
    """The federation's gateway; behind an external one, networks are not offered."""
    bound = reply_bound(federation.target.layout, 1).bytes
    service = NetworkService(federation.root)
    networks = Networks(service=service, largest_bytes=bound) if offered else None
    with gateway_running(
        federation.root, networks=networks, largest_context_bytes=bound
    ) as gateway:
        yield Served(federation=federation, gateway=gateway, service=service)


def generate(site: Path, *more: str) -> dict[str, Any]:
    done = in_process("f2l-site", "generate", str(site), "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-6)
