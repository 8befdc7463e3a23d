"""A federation's folder: configuration, zoo, releases, rounds and events in one place."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.private_files import private_folder
from f2l_fed.data.readers.agreed_scales import Scales, scales_digest
from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.events import EventLog, Listener
from f2l_fed.generator.serialization import BODY, NEXT_BODY
from f2l_fed.local_training.probe import anchor, first_anchor, recentred
from f2l_fed.quarantine.quarantine import Quarantine
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.targets.body import Body, body_digest
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.head_rows import require_any_classes
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import Frame
from f2l_fed.zoo import Zoo
from server.federation.agreed_scales import agreed_scales
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry

FEDERATION_FILE = "federation.json"
"""Name of the file that marks a federation's folder."""

BACKBONE_FILE = "backbone.json"
"""Name of the file in a simulation's folder that names the backbone of its sites."""


@dataclass(frozen=True)
class Federation:
    """An opened federation folder.

    Args:
        root: The folder.
        config: Its configuration.
    """

    root: Path
    config: FederationConfig

    @classmethod
    def create(cls, root: Path, config: FederationConfig) -> Federation:
        """Creates a new federation.

        Raises:
            UsageError: If the folder holds a federation.
        """
        federation = cls(root, config)
        layout = federation.target.layout
        if (root / FEDERATION_FILE).exists():
            raise UsageError(
                "the folder holds a federation already",
                where=str(root),
                remedy="Choose another folder.",
            )
        private_folder(root)
        # Before the file that marks the folder: an object store may refuse the zoo.
        Zoo.create(
            federation.zoo_place,
            lineage=config.lineage,
            layout_digest=layout.digest,
            layout=layout.to_json(),
            context_dim=layout.size,
        )
        (root / "rounds").mkdir(exist_ok=True)
        write_atomically(root / FEDERATION_FILE, json.dumps(config.to_json(), indent=1) + "\n")
        return cls(root, config)

    def is_untouched(self) -> bool:
        """Whether no site has registered yet and nothing has come in, so that the task may change.

        A registration that can't be read counts as one.
        """
        for path in (self.root / "registry").glob("[a-z0-9]*.json"):
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                if known["state"] != "invited" or known["key"]:
                    return False
            except (OSError, ValueError, KeyError, TypeError):
                return False
        place = self.zoo_place
        if isinstance(place, Path) and not place.exists():
            # An earlier change was cut off.
            return True
        return not self.last_round() and not self.zoo.snapshot().commit

    def replace_task(self, config: FederationConfig) -> None:
        """Makes an untouched folder one for another task: its empty zoo is made anew.

        Raises:
            UsageError: If the zoo is in an object store, where nothing is ever removed.
            TargetError: If the new network can't be built.
        """
        new = Federation(self.root, config)
        layout = new.target.layout
        if not isinstance(self.zoo_place, Path) or self.config.zoo != config.zoo:
            raise UsageError(
                "the task can't change while the zoo is in an object store, or moves",
                where=str(self.root),
                remedy="Create another federation.",
            )
        shutil.rmtree(self.zoo_place, ignore_errors=True)
        Zoo.create(
            new.zoo_place,
            lineage=config.lineage,
            layout_digest=layout.digest,
            layout=layout.to_json(),
            context_dim=layout.size,
        )
        # Last: a folder whose zoo is of another task is refused, and this step is repeated.
        write_atomically(self.root / FEDERATION_FILE, json.dumps(config.to_json(), indent=1) + "\n")

    @classmethod
    def open(cls, root: Path) -> Federation:
        """Opens a federation.

        Raises:
            ConfigError: If the folder holds no federation.
        """
        path = root / FEDERATION_FILE
        try:
            values: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                "the folder is not a federation",
                where=str(root),
                expected=f"a readable {FEDERATION_FILE}",
                got=str(error),
                remedy="Create one with f2l-server init.",
            ) from error
        return cls(root, from_mapping(FederationConfig, values, where=str(path)))

    @cached_property
    def target(self) -> Target:
        """The network that is generated: the whole one, or its head for the most classes."""
        return self.network if self.body is None else self.body.head

    @cached_property
    def network(self) -> Target:
        """The whole network that sites get; with a body, one with the most classes."""
        shape = self.config.target
        return build_target(shape.name, shape.input_shape, shape.classes, self.frozen)

    @cached_property
    def frozen(self) -> FrozenPart | None:
        """The frozen part of the network; in a simulation as it is installed."""
        path = self.root / BACKBONE_FILE
        if not self.config.target.adapted or not path.exists():
            return self.config.target.frozen
        own = from_mapping(BackboneConfig, json.loads(path.read_text()), where=str(path))
        return InstalledBackbone.of(own, self.root).installed

    @cached_property
    def body(self) -> Body | None:
        """The body that all sites share; None where whole networks are generated."""
        if not self.config.has_body:
            return None
        body = Body.of(self.network)
        require_any_classes(body)
        return body

    @property
    def body_layout(self) -> WeightLayout | None:
        """The layout of that body."""
        return None if self.body is None else self.body.layout

    @cached_property
    def symmetry(self) -> OutputSymmetry:
        """The output-permutation symmetry, off where labels are shared."""
        return OutputSymmetry.of(self.target, enabled=not self.config.shared_labels)

    @cached_property
    def scales(self) -> Scales:
        """The scales of columns of numbers that all sites have; none where each fits its own."""
        return agreed_scales(self.root, self.config.scaling)

    @cached_property
    def frame(self) -> Frame:
        """The part that all requests to sites share."""
        config = self.config
        return Frame(
            lineage=config.lineage,
            target=config.target.name,
            classes=config.target.classes,
            input_shape=config.target.input_shape,
            layout=self.target.layout.digest,
            episodes=config.pairs,
            shots=config.probe.shots,
            probe=config.probe.recipe,
            shared_labels=config.shared_labels,
            nearest=config.candidates.nearest,
            to_sites=config.release.to_sites,
            adapt="head" if self.body else "all",
            body_layout=self.body.layout.digest if self.body else "",
            episodic=config.episodes if self.body else None,
            head=config.head if self.body else None,
            shared=config.shared if config.has_shared_network else None,
            frozen=config.target.frozen,
            scales=scales_digest(self.scales),
        )

    @cached_property
    def service_frame(self) -> Frame:
        """The frame of requests outside of rounds: a site has one context and gets one network."""
        return replace(self.frame, episodes=1)

    @property
    def probe_frame(self) -> Frame:
        """The frame of the requests for contexts of a round.

        A head, or a network around a shared one, is generated for one context alone.
        """
        alone = self.body is not None or self.config.has_shared_network
        return self.service_frame if alone else self.frame

    @cached_property
    def first_start(self) -> Tensor:
        """(D,) float32, what networks or heads start from where no release has made any."""
        return anchor(self.target, self.config.lineage)

    def anchor(self, release: Release | None) -> Tensor:
        """The start of contexts for a release; None stands for no release yet.

        Returns:
            (D,) float32, the start of the probes; with a body, (B,), the body of the heads.
        """
        if release is None:
            return first_anchor(self.network, self.body, self.config.lineage)
        return self.releases.part(release.id, "anchor" if self.body is None else BODY)

    def prior_anchor(self, release: Release | None) -> Tensor:
        """(D,) float32, what the contexts are added to that come in after a release.

        The anchor of the probes; a head is one itself, so with a body it is zero.
        """
        return self.next_anchor(release) if self.body is None else self.first_start

    def next_anchor(self, release: Release | None) -> Tensor:
        """The start of contexts in the round after a release, as of `anchor`."""
        if release is not None and (self.body is not None or self.config.has_shared_network):
            return self.releases.part(release.id, NEXT_BODY)
        if release is None or release.anchors >= self.config.probe.anchors:
            return self.anchor(release)
        return recentred(self.target, self.releases.part(release.id, "mean"))

    def chain(self, release: Release | None) -> tuple[str, ...]:
        """The digests of all bodies up to that of `next_anchor`, oldest first."""
        if self.body is None:
            return ()
        return (body_digest(self.anchor(None)),) if release is None else release.chain

    def chain_to(self, body: Tensor) -> tuple[str, ...]:
        """The part of the promoted release's chain up to one of its bodies."""
        chain = self.chain(self.releases.promoted())
        digest = body_digest(body) if chain else ""
        return chain[: chain.index(digest) + 1] if digest in chain else ()

    @cached_property
    def zoo(self) -> Zoo:
        """The weight zoo."""
        return Zoo.open(self.zoo_place)

    @property
    def zoo_place(self) -> Path | str:
        """The zoo's folder, or its address in an object store."""
        place = self.config.zoo
        return place if "://" in place else self.root / place

    def last_round(self) -> int:
        """Number of the last known round; 0 before the first.

        A restored folder may lack round files although records or releases of these rounds exist.
        """
        files = [path.stem for path in (self.root / "rounds").glob("[0-9]*.json")]
        known = {int(name) for name in (*files, *self.releases.ids()) if name.isdecimal()}
        for numbers in self.zoo.snapshot().rounds().values():
            known |= numbers.keys()
        return max(known, default=0)

    @cached_property
    def quarantine(self) -> Quarantine:
        """The submissions that admission has quarantined."""
        return Quarantine(self.root / "quarantine")

    @property
    def screening(self) -> Path:
        """File of the admission history."""
        return self.root / "screening.safetensors"

    @cached_property
    def releases(self) -> ReleaseRegistry:
        """The releases."""
        return ReleaseRegistry(self.root / "releases")

    def events(self, listener: Listener | None = None) -> EventLog:
        """The event log."""
        return EventLog(path=self.root / "events.jsonl", clock=time.time, listener=listener)
