"""What is to be simulated, and its folder: data divided, every site with its own.

Apart from the run itself (`server.simulation.run`), which takes seconds to import: whatever can't
be is told before.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.data import Partition, SiteData, load, partition, save_npz
from f2l_fed.errors import UsageError
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.zoo import Zoo
from server.federation.folder import FEDERATION_FILE, Federation

_OURS = (
    "events.jsonl",
    "result.json",
    "report.html",
    "zoo",
    "quarantine",
    "screening.safetensors",
    "releases",
    "rounds",
    "sites",
    "spool",
    "training",
    # Last: a folder without it is not taken for ours.
    FEDERATION_FILE,
)
# What f2l-server init lays out, and no simulation.
_SERVED = ("certificates", "federation.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What is to be simulated.

    Args:
        data: Names of datasets or paths of ``.npz`` files, pooled.
        scenario: How they are divided.
        sites: Number of training sites.
        held_out: Number of held-out sites of each kind.
        rounds: Number of rounds.
        out: Folder of the federation and its results.
        config: Everything else; its seed decides every random draw.
    """

    data: tuple[str, ...]
    scenario: str
    sites: int
    held_out: int
    rounds: int
    out: Path
    config: FederationConfig


def prepare(simulation: Simulation, *, force: bool) -> tuple[Federation, Partition]:
    """Divides the data, gives every site its folder and lays out the federation.

    Raises:
        UsageError: If the folder holds results already and ``force`` is not set.
        DataError: If the data can't be used or don't suffice.
        TargetError: If the network does not suit the data.
    """
    if simulation.rounds < 1:
        raise UsageError("rounds is too small", expected=">= 1", got=str(simulation.rounds))
    ray_ = simulation.config.ray
    if ray_.task_cpus and not ray_.address:
        raise UsageError(
            "the sites of a simulation book all CPUs, so a task that books some would never run",
            where="ray.task_cpus",
            expected="0",
            got=f"{ray_.task_cpus:g}",
        )
    out = simulation.out
    _require_free(out, force=force)
    divided = partition(
        simulation.scenario,
        [load(spec) for spec in simulation.data],
        sites=simulation.sites,
        held_out=simulation.held_out,
        seed=simulation.config.seed,
        config=simulation.config.split,
    )
    config = replace(
        simulation.config,
        shared_labels=divided.shared_labels,
        target=replace(
            simulation.config.target, input_shape=divided.input_shape, classes=divided.classes
        ),
    )
    federation = Federation(out, config)
    federation.target  # noqa: B018 - a target that does not suit is told before files are replaced
    if isinstance(federation.zoo_place, str) and Zoo.exists(federation.zoo_place):
        raise UsageError(
            "there is a zoo in the object store already, and none is ever replaced",
            where=federation.zoo_place,
            remedy="Choose another prefix; nothing was touched.",
        )
    for name in _OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    federation = Federation.create(out, config)
    for site in divided.sites:
        _write_site(out / "sites" / site.name, site, config)
    return federation, divided


def _require_free(out: Path, *, force: bool) -> None:
    """Raises UsageError unless nothing but our own results, if need be, will be replaced."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / FEDERATION_FILE).exists()):
        raise UsageError(
            "this is neither an empty folder nor one of a federation",
            where=str(out),
            remedy="Choose another --out; nothing in it was touched.",
        )
    if any((out / name).exists() for name in _SERVED):
        raise UsageError(
            "this is the folder of a federation with a server of its own",
            where=str(out),
            remedy="Choose another --out; nothing in it was touched.",
        )
    if any(out.iterdir()) and not force:
        raise UsageError(
            "there are results in this folder already",
            where=str(out),
            remedy="Choose another --out, or replace them with --force.",
        )
    lock = out / "rounds" / "lock"
    if lock.exists():
        with locked(lock, wait=False, what="a process conducts rounds in this folder"):
            return


def held_out_sites(divided: Partition) -> dict[str, list[HeldOutSite] | None]:
    """The held-out sites of a partition by kind, as they are measured."""
    return {
        kind: None
        if sites is None
        else [
            HeldOutSite(
                name=site.name,
                train=(torch.from_numpy(site.x_train), torch.from_numpy(site.y_train)),
                test=(torch.from_numpy(site.x_test), torch.from_numpy(site.y_test)),
            )
            for site in sites
        ]
        for kind, sites in divided.held_out.items()
    }


def _write_site(folder: Path, site: SiteData, config: FederationConfig) -> None:
    folder.mkdir(parents=True)
    save_npz(folder / "train.npz", site.x_train, site.y_train)
    save_npz(folder / "validation.npz", site.x_test, site.y_test)
    write_atomically(
        folder / "site.toml",
        f'name = "{site.name}"\n'
        'data = "train.npz"\n'
        'validation = "validation.npz"\n\n'
        "[policy]\n"
        f'targets = "{config.target.name}"\n'
        "minimum_examples = 1\n"
        # Days pass quickly in a simulation.
        "rounds_per_day = 1000000\n"
        "answers_per_day = 1000000\n",
    )
