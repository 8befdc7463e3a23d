"""Setup of a simulation: its description, its checks, and its folder with data for every site.

Separate from the run (`server.simulation.run`), which takes seconds to import, so that invalid
requests are refused at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.data import Dataset, Partition, load_dataset, partition
from f2l_fed.data.named_datasets.registry import DATASETS
from f2l_fed.data.own_data import read_pool, read_sites
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.files import kind_of
from f2l_fed.data.scenarios.partition import LIKE_SITES
from f2l_fed.errors import UsageError
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.targets.auto import chosen_target
from f2l_fed.targets.backbone import Progress
from f2l_fed.targets.body import Body
from f2l_fed.targets.build import build_target
from f2l_fed.targets.config import ADAPTER, BackboneConfig
from f2l_fed.targets.head_rows import require_any_classes
from f2l_fed.zoo import Zoo
from server.federation.folder import BACKBONE_FILE, FEDERATION_FILE, Federation
from server.simulation.features import installed_backbone, on_features
from server.simulation.site_folders import site_folder, write_site_folder

_RESULTS = (
    "events.jsonl",
    "result.json",
    "report.html",
    "zoo",
    "quarantine",
    "screening.safetensors",
    "releases",
    "rounds",
    "bodies",
    "sites",
    "spool",
    "training",
    BACKBONE_FILE,
    # Last: without it the folder is no longer a federation's.
    FEDERATION_FILE,
)
# Created by f2l-server init, and never by a simulation.
_SERVER_FILES = ("certificates", "federation.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The description of a simulation.

    Args:
        data: Names of datasets, or paths of users' own data, pooled.
        own_sites: Names of sites, and their own data each; then there is no ``data``.
        reading: Settings of the reading of own data.
        backbone: The frozen backbone of all sites; none where whole networks or bodies are trained.
        scenario: The scenario that divides them among sites.
        sites: Number of training sites.
        held_out: Number of held-out sites of each kind.
        rounds: Number of rounds.
        out: Folder of the federation and its results.
        config: The federation's configuration; its seed decides every random draw.
        baselines: Whether baselines are trained and measured, too.
    """

    data: tuple[str, ...]
    scenario: str
    sites: int
    held_out: int
    rounds: int
    out: Path
    config: FederationConfig
    baselines: bool = False
    own_sites: tuple[tuple[str, Path], ...] = ()
    reading: ReadingConfig = LIKE_SITES
    backbone: BackboneConfig = BackboneConfig()


def prepare(
    simulation: Simulation,
    *,
    force: bool,
    remark: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> tuple[Federation, Partition]:
    """Divides the data and creates the federation with a folder for every site.

    Args:
        simulation: The simulation.
        force: Whether results that are there may be replaced.
        remark: Called with each remark on own data, a sentence.
        progress: Told while a backbone makes features.

    Returns:
        The federation, and its data; on a backbone with the features as inputs, which only the
        folders of the sites have otherwise.

    Raises:
        UsageError: If the folder holds results already and ``force`` is not set.
        DataError: If the data are invalid or too few.
        TargetError: If the network does not fit the data.
    """
    remark = remark or (lambda _: None)
    if simulation.rounds < 1:
        raise UsageError("rounds is too small", expected=">= 1", got=str(simulation.rounds))
    ray_config = simulation.config.ray
    if ray_config.on_ray and ray_config.task_cpus and not ray_config.address:
        raise UsageError(
            "a task that reserves CPUs would never run, since the simulated sites reserve all",
            where="ray.task_cpus",
            expected="0",
            got=f"{ray_config.task_cpus:g}",
        )
    out = simulation.out
    _require_free(out, force=force)
    divided = partition(
        simulation.scenario,
        _datasets(simulation, remark),
        sites=simulation.sites,
        held_out=simulation.held_out,
        seed=simulation.config.seed,
        config=simulation.config.split,
        reading=simulation.reading,
        scaling=simulation.config.scaling,
    )
    for note in divided.notes:
        remark(note)
    target = replace(
        simulation.config.target, input_shape=divided.input_shape, classes=divided.classes
    )
    backbone = None
    if target.name == ADAPTER:
        backbone = installed_backbone(simulation.backbone, divided)
        target = replace(target, **backbone.settings)
    elif divided.reading.text:
        raise UsageError(
            "the inputs are texts, which only a backbone takes",
            where="data.text",
            remedy="Name one (backbone.file, backbone.network), or columns of numbers.",
        )
    config = replace(
        simulation.config,
        shared_labels=divided.shared_labels,
        target=chosen_target(target),
        scaling=replace(simulation.config.scaling, agreed=divided.agreed_scales),
    )
    federation = Federation(out, config)
    # An unsuitable target is refused before files are replaced.
    network = build_target(
        config.target.name, config.target.input_shape, config.target.classes, config.target.frozen
    )
    if config.has_body:
        require_any_classes(Body.of(network))
    if simulation.baselines:
        if divided.changes:
            raise UsageError(
                "baselines are not measured in a federation that changes",
                where="--baselines",
                remedy="Leave it out, or choose another scenario.",
            )
        body = Body.of(network)
        if config.split.most_ways > config.split.usual_ways:
            require_any_classes(body)
    if isinstance(federation.zoo_place, str) and Zoo.exists(federation.zoo_place):
        raise UsageError(
            "the object store holds a zoo already, and a simulation replaces none",
            where=federation.zoo_place,
            remedy="Choose another prefix; nothing was changed.",
        )
    for name in _RESULTS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    federation = Federation.create(out, config)
    if backbone is not None:
        write_atomically(out / BACKBONE_FILE, json.dumps(asdict(backbone.config)))
    for number, site in enumerate(divided.sites):
        folder = site_folder(federation.root, number)
        write_site_folder(folder, site, divided, config, backbone)
    if backbone is not None:
        divided = on_features(divided, backbone, out / "sites", progress)
    return federation, divided


def _datasets(simulation: Simulation, remark: Callable[[str], None]) -> list[Dataset]:
    if simulation.own_sites:
        found = [read_sites(simulation.own_sites, simulation.reading)]
    else:
        found = [_dataset(spec, simulation.reading) for spec in simulation.data]
    for _, remarks in found:
        for text in remarks:
            remark(text)
    return [dataset for dataset, _ in found]


def _dataset(spec: str, reading: ReadingConfig) -> tuple[Dataset, tuple[str, ...]]:
    """A dataset by its name, or of a path, and remarks."""
    path = Path(spec).expanduser()
    if spec in DATASETS or not (path.exists() or path.is_symlink() or kind_of(path)):
        return load_dataset(spec), ()
    return read_pool(path, reading)


def _require_free(out: Path, *, force: bool) -> None:
    """Raises UsageError unless the folder is free, or holds results that may be replaced."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / FEDERATION_FILE).exists()):
        raise UsageError(
            "the folder is neither empty nor a federation's",
            where=str(out),
            remedy="Choose another --out; nothing was changed.",
        )
    if any((out / name).exists() for name in _SERVER_FILES):
        raise UsageError(
            "the folder belongs to a deployed federation",
            where=str(out),
            remedy="Choose another --out; nothing was changed.",
        )
    if any(out.iterdir()) and not force:
        raise UsageError(
            "the folder holds results already",
            where=str(out),
            remedy="Choose another --out, or replace them with --force.",
        )
    lock = out / "rounds" / "lock"
    if lock.exists():
        with locked(lock, wait=False, what="a process conducts rounds in this folder"):
            return


def held_out_sites(divided: Partition) -> dict[str, list[HeldOutSite] | None]:
    """The held-out sites of a partition, by kind, as tensors."""
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
