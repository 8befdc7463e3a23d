"""The configuration of a federation: one frozen value from ``federation.toml`` and overrides.

Every key has a default, so an empty file is a valid configuration. Unknown keys and values of
the wrong type are refused with the nearest known name, wherever they come from.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from f2l_fed.admission import AdmissionConfig
from f2l_fed.audit.release_limits import GateConfig
from f2l_fed.codec.config import CodecConfig
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.device import DEVICES
from f2l_fed.core.validation import choice, positive, require, share
from f2l_fed.data import SplitConfig
from f2l_fed.data.readers.agreed_scales import ScalingConfig
from f2l_fed.data.readers.agreed_settings import LONGEST_FEATURE, MOST_FEATURES
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.labels import LONGEST_LABEL, MOST_LABELS, label_key, tidy_name
from f2l_fed.errors import ConfigError
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.config import (
    AggregateConfig,
    CandidatesConfig,
    GeneratorConfig,
    ReleaseConfig,
    SampleConfig,
)
from f2l_fed.local_training.config import (
    EpisodesConfig,
    HeadConfig,
    ProbeConfig,
    Recipe,
    SharedConfig,
)
from f2l_fed.prior.config import PriorConfig
from f2l_fed.targets.auto import AUTO
from f2l_fed.targets.config import ADAPTER, ALL, BackboneConfig, TargetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundConfig:
    """The end of a round, and its limits.

    Args:
        timeout_s: Seconds to wait for a site's reply; later ones count for the next retraining.
        deadline_s: Seconds after which the check-in ends, and after as many more the exchange,
            even if sites are missing; 0 waits for all of them.
        enough: Share of the asked sites after whose updates the exchange ends, too.
        quorum: Share of the asked sites whose updates must be accepted for a retraining.
        minimum: Smallest number of sites in the zoo for a retraining.
        most: Largest number of sites in a retraining, the latest ones first; bounds its memory.
        in_flight: Largest number of unanswered tasks at a time; bounds the server's memory.
        poll_s: Largest number of seconds between polls for replies; fewer while they come.
    """

    timeout_s: float = 600.0
    deadline_s: float = 0.0
    enough: float = 1.0
    quorum: float = 0.5
    minimum: int = 2
    most: int = 4096
    in_flight: int = 16
    poll_s: float = 0.5

    def __post_init__(self) -> None:
        positive(self, "timeout_s", "poll_s", "in_flight")
        share(self, "quorum")
        require(self.deadline_s >= 0, self, "deadline_s", ">= 0")
        require(0 < self.enough <= 1, self, "enough", "> 0 and <= 1")
        require(self.minimum >= 2, self, "minimum", ">= 2")
        require(self.most >= self.minimum, self, "most", ">= minimum")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """The processes of the heavy work: those of this machine, or a Ray cluster.

    Args:
        engine: "local" for processes that this one forks, "ray" for Ray; "auto" takes Ray where
            ``address``, ``train_workers`` or ``part_workers`` asks for it.
        address: Address of a Ray cluster, ``host:port`` or "auto"; "" starts one inside this
            process.
        cpus: CPUs of the embedded Ray, or processes of this machine; 0 takes all.
        task_cpus: CPUs that a task reserves; 0 where simulated sites reserve all of them.
        threads: torch threads in a task; more than there are idle cores make it slow.
        device: Device of the flow's fit and of the draws: "cpu", "cuda", or "auto" for the GPU
            where there is one. With "cuda" a task without one fails, and the service outside of
            rounds uses one where it has it. On either a seed means the same networks up to
            rounding, not to the bit.
        generators: Processes that make candidates at a time, for 16 sites each; one keeps up with
            hundreds of sites, and a second one has to start first.
        train_workers: Processes that share the flow's gradient steps under Ray Train; 0 takes
            them in the retraining's own process, which is faster where a fit takes seconds.
        memory_mb: Records of more megabytes lie in files of the federation's folder while they are
            retrained on, and need next to no memory.
        part_workers: Tasks at a time that work on parts of such records, on any node of the
            cluster; 0 leaves all of it to the retraining's own process.
        train_failures: Largest number of times that lost processes of these are replaced.
        jobs: Address of Ray's job server, ``http://host:8265``, for retrainings as jobs of a
            remote cluster; "" runs them as tasks.
        token_file: Absolute path of the file with the token that the cluster at ``address``, or
            the job server, asks for; "" takes RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
    """

    engine: str = "auto"
    address: str = ""
    cpus: int = 0
    task_cpus: float = 0.0
    threads: int = 1
    device: str = "cpu"
    generators: int = 1
    train_workers: int = 0
    train_failures: int = 3
    memory_mb: int = 1000
    part_workers: int = 0
    jobs: str = ""
    token_file: str = ""

    def __post_init__(self) -> None:
        require(self.engine in ("auto", "local", "ray"), self, "engine", '"auto", "local" or "ray"')
        told = '"ray" or "auto" where address, train_workers or part_workers is set'
        require(not (self.engine == "local" and self._asks_for_ray), self, "engine", told)
        positive(self, "threads", "generators")
        choice(self, "device", DEVICES)
        require(self.train_workers >= 0, self, "train_workers", ">= 0")
        require(self.memory_mb >= 0, self, "memory_mb", ">= 0")
        require(self.part_workers >= 0, self, "part_workers", ">= 0")
        require(self.train_failures >= 0, self, "train_failures", ">= 0")
        require(self.cpus >= 0, self, "cpus", ">= 0")
        require(self.task_cpus >= 0, self, "task_cpus", ">= 0")
        place = re.fullmatch(r"(auto|[^\s/]+:\d{1,5})?", self.address)
        require(place is not None, self, "address", 'host:port, "auto" or ""')
        jobs = re.fullmatch(r"(https?://[^\s/]+/?)?", self.jobs)
        require(jobs is not None, self, "jobs", 'http://host:port or ""')
        absolute = not self.token_file or self.token_file.startswith("/")
        require(absolute, self, "token_file", 'an absolute path or ""')

    @property
    def on_ray(self) -> bool:
        """Whether the heavy work needs Ray."""
        return self.engine == "ray" or (self.engine == "auto" and self._asks_for_ray)

    @property
    def _asks_for_ray(self) -> bool:
        return bool(self.address or self.train_workers or self.part_workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationConfig:
    """All settings of a federation.

    Args:
        seed: Decides the lineage and with it every random draw.
        shared_labels: Whether label k means the same at every site; switches the
            output-permutation symmetry off. A simulation's scenario decides it.
        labels: Where labels are shared, the names of the classes in the order of the outputs; none
            where sites number them alike.
        features: Where inputs are rows of tables, the names of their features in order, as all
            sites make them; none where that is not agreed on.
        zoo: The weight zoo: a folder, relative to the federation's, or s3://bucket/prefix.
            Endpoint and credentials are in the environment (AWS_...) of all processes that use it,
            never here.
        scaling: Where inputs are vectors or rows of tables, scales that are the same everywhere.
        first: Recipe of a site's first round, from the anchor.
        later: Recipe of later rounds, from a generated start.
        local: Recipe of a site that only uses the service; held-out sites are measured with it.
    """

    seed: int = 0
    shared_labels: bool = False
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    zoo: str = "zoo"
    target: TargetConfig = field(default_factory=TargetConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    shared: SharedConfig = field(default_factory=SharedConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    first: Recipe = Recipe(steps=150, lr=0.05, momentum=0.9, batch=50)
    later: Recipe = Recipe(steps=15, lr=0.03, momentum=0.9, batch=50)
    local: Recipe = Recipe(steps=50, lr=0.05, momentum=0.9, batch=0)
    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    round: RoundConfig = field(default_factory=RoundConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        place, remote = self.zoo.removeprefix("s3://"), "://" in self.zoo
        sound = bool(place) and "://" not in place and not (remote and "@" in place)
        require(sound, self, "zoo", "a folder, or s3://bucket/prefix without credentials")
        keys = set(map(label_key, self.labels))
        require(len(keys) == len(self.labels), self, "labels", "different names")
        few = len(self.labels) <= MOST_LABELS
        short = all(tidy_name(name) and len(name) <= LONGEST_LABEL for name in self.labels)
        rule = f"at most {MOST_LABELS} names of 1 to {LONGEST_LABEL} characters"
        require(few and short, self, "labels", rule)
        few = len(set(self.features)) == len(self.features) <= MOST_FEATURES
        short = all(0 < len(name) <= LONGEST_FEATURE for name in self.features)
        rule = f"at most {MOST_FEATURES} different names of 1 to {LONGEST_FEATURE} characters"
        require(few and short, self, "features", rule)
        # A federation has no random initialisations to start from.
        require(self.flow.source != "kaiming", self.flow, "source", "gaussian or prior")

    @property
    def lineage(self) -> str:
        """Name of the family of networks that may be compared and averaged."""
        return f"{self.target.name}/{self.seed}"

    @property
    def has_body(self) -> bool:
        """Whether all sites share a body, and heads are generated."""
        return self.target.adapt != ALL and not self.shared_labels

    @property
    def has_shared_network(self) -> bool:
        """Whether all sites share a network with its head, since labels mean the same."""
        return self.target.adapt != ALL and self.shared_labels

    @property
    def pairs(self) -> int:
        """E, the number of contexts that a training site sends, each with its network or head."""
        return self.head.pairs if self.has_body else self.probe.episodes

    def recipe(self, release: str) -> Recipe:
        """The fine-tuning of a round from the starts of a release; "" for the first round.

        On a body a site starts from a solved head, in the first round too.
        """
        shares = self.has_body or self.has_shared_network
        return self.later if release or shares else self.first

    @property
    def limits(self) -> GateConfig:
        """The limits of the gate; around a shared network those that are about accuracy alone."""
        return self.gate.of_accuracy() if self.has_shared_network else self.gate

    @property
    def generator(self) -> GeneratorConfig:
        """The settings of the generator."""
        return GeneratorConfig(
            aggregate=self.aggregate,
            prior=self.prior,
            codec=self.codec,
            flow=self.flow,
            sample=self.sample,
        )

    def to_json(self) -> dict[str, Any]:
        """Nested plain values; `from_mapping` reads them back."""
        return dataclasses.asdict(self)


def new_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a new federation: heads are generated, of a network that suits the inputs,
    unless they say otherwise.

    A folder without these keys was made when there were other defaults.
    """
    target = values.get("target", {})
    if not isinstance(target, dict):
        return {**values}
    return {**values, "target": {"adapt": "head", "name": AUTO, **target}}


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> FederationConfig:
    """Reads a configuration.

    Args:
        path: A TOML file, or None for the defaults.
        overrides: ``section.key=value`` texts; the value is TOML, or a bare word as a string.

    Raises:
        ConfigError: If the file can't be read, a key is unknown or a value is invalid.
    """
    return config_of(_values(path), overrides, where=str(path) if path else "--set")


class SimulationSettings(NamedTuple):
    """The configuration of a simulation.

    Args:
        federation: Of its federation.
        reading: Of the reading of own data, under ``[data]``.
        backbone: The backbone of all sites, under ``[backbone]``.
    """

    federation: FederationConfig
    reading: ReadingConfig
    backbone: BackboneConfig


def load_simulation_config(path: Path | None, overrides: Sequence[str] = ()) -> SimulationSettings:
    """Reads the configuration of a simulation; see `load_config`."""
    values = new_values(_values(path))
    for text in overrides:
        _override(values, text)
    where = str(path) if path else "--set"
    data, backbone = (values.pop(name, {}) for name in ("data", "backbone"))
    for name, section in (("data", data), ("backbone", backbone)):
        if not isinstance(section, dict):
            raise ConfigError("not a section", where=where, got=name)
    if backbone and isinstance(target := values.get("target"), dict):
        if target.get("name", AUTO) not in (AUTO, ADAPTER):
            raise ConfigError(
                "a backbone is there, and another target is named",
                where=f"{where} target.name",
                expected=repr(ADAPTER),
                got=repr(target["name"]),
                remedy="Leave one of both out.",
            )
        target["name"] = ADAPTER
        data = {"scale": "", **data}
    return SimulationSettings(
        federation=config_of(values, where=where),
        reading=from_mapping(
            # Numbers are scaled as at new sites, unless the settings say otherwise.
            ReadingConfig,
            {"scale": "standard", **data},
            where=f"{where} [data]",
        ),
        backbone=from_mapping(BackboneConfig, backbone, where=f"{where} [backbone]"),
    )


def _values(path: Path | None) -> dict[str, Any]:
    """The plain values of a TOML file; none without one."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            # Some editors begin a file with a mark of its encoding.
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                "the configuration can't be read", where=str(path), got=str(error)
            ) from error
    return values


def config_of(
    values: dict[str, Any], overrides: Sequence[str] = (), *, where: str
) -> FederationConfig:
    """A configuration from nested plain values, such as those of a TOML file; see `load_config`."""
    for text in overrides:
        _override(values, text)
    # A section that is set in part keeps its own defaults: `first` and `later` are both recipes.
    whole = _overlay(FederationConfig().to_json(), values)
    return from_mapping(FederationConfig, whole, where=where)


def _override(values: dict[str, Any], text: str) -> None:
    key, separator, raw = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError("not an override", where="--set", expected="section.key=value", got=text)
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError("not a section", where="--set", got=section)
    values[last] = value


def _overlay(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        key: _overlay(base[key], value)
        for key, value in values.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **values, **inner}
