"""The agreement about a federation's task: what a site compares with itself before it takes part.

The server gives it to a registered site under the key ``task`` of `FederationFacts`' answers. There
is nothing in it that a request of a round would not tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.wording import number_of
from f2l_fed.data.readers.agreed_scales import ScalingConfig
from f2l_fed.data.readers.agreed_settings import MOST_FEATURES
from f2l_fed.data.readers.labels import MOST_LABELS, label_key
from f2l_fed.errors import ConfigError, WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets.config import FEWEST
from f2l_fed.wire.fields import counted, listed, named, pack_settings, unpack_settings
from f2l_fed.wire.frames import pack_frame, unpack_frame
from f2l_fed.wire.messages import Frame
from f2l_fed.wire.protocol import LATEST, OLDEST
from f2l_fed.wire.refusals import OLD_PROTOCOL, reason_of

TASK = "task"
"""Key of the agreement in an answer."""

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The agreement about a task.

    Args:
        frame: The network, as in every request of a round.
        first: Recipe of a site's first round.
        later: Recipe of later rounds.
        labels: Where they are shared, the names of the classes in the order of the outputs; empty
            where they are the numbers of the outputs.
        features: The names of a table's features in their order; empty where they are not agreed.
        scaling: The scales of numbers, or how sites come to agree on them.
        version: Of the server's program.
    """

    frame: Frame
    first: Recipe
    later: Recipe
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    version: str = ""

    @property
    def protocol(self) -> int:
        """The lowest version of the protocol that a site has to speak."""
        return LATEST if self.frame.needs_latest else OLDEST

    @property
    def scales_are_agreed(self) -> bool:
        """Whether all sites have the same scales of numbers, or will have before a round."""
        return bool(self.scaling.sites or self.scaling.agreed)

    def to_json(self) -> dict[str, Any]:
        """The keys that it adds to an answer."""
        fields = {
            **pack_frame(self.frame, self.protocol),
            **pack_settings("first", self.first),
            **pack_settings("later", self.later),
            "names": list(self.labels),
            "program": self.version,
        }
        if self.features:
            fields["feature_names"] = list(self.features)
        if self.scaling != ScalingConfig():
            fields["scaling"] = asdict(self.scaling)
        return {TASK: fields}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Agreement | None:
        """Reads it from an answer; None for one of an older server, which says nothing.

        Raises:
            ConfigError: If it needs a later protocol than this installation speaks.
            WireError: If it is damaged.
        """
        fields = values.get(TASK)
        if not isinstance(fields, dict):
            return None
        if counted(fields, "version") > LATEST:
            reason = reason_of(OLD_PROTOCOL)
            raise ConfigError(reason.text, remedy=reason.remedy, code=OLD_PROTOCOL)
        features: tuple[str, ...] = ()
        if "feature_names" in fields:
            features = tuple(listed(fields, "feature_names", str, most=MOST_FEATURES))
        return cls(
            frame=unpack_frame(fields),
            first=unpack_settings(Recipe, "first", fields),
            later=unpack_settings(Recipe, "later", fields),
            labels=tuple(listed(fields, "names", str, most=MOST_LABELS)),
            features=features,
            scaling=_scaling_of(fields),
            version=named(fields, "program"),
        )

    def about(self) -> str:
        """The task in words.

        >>> from f2l_fed.wire.messages import Frame
        >>> frame = Frame(lineage="mlp/0", target="mlp", classes=3, input_shape=(1, 8, 8),
        ...               layout="", episodes=1, shots=5, probe=Recipe(steps=1))
        >>> Agreement(frame=frame, first=Recipe(steps=1), later=Recipe(steps=1)).about()
        'images of 8x8 pixels in 1 channel, 3 classes, each site its own, network mlp'
        """
        frame = self.frame
        classes = f"{frame.classes} classes"
        if frame.shared_labels:
            names = ", ".join(self.labels[:_SHOWN])
            more = f" and {len(self.labels) - _SHOWN} more" if len(self.labels) > _SHOWN else ""
            numbers = f"numbered 0 to {frame.classes - 1}"
            classes += f", the same at every site: {names + more if names else numbers}"
        elif frame.adapt == "head" and frame.classes > FEWEST:
            classes = f"{FEWEST} to {frame.classes} classes, each site its own"
        else:
            classes += ", each site its own"
        return f"{inputs_text(frame.input_shape)}, {classes}, network {frame.target}"


def _scaling_of(fields: Mapping[str, Any]) -> ScalingConfig:
    """The scales in an agreement; those of each site's own where it names none."""
    given = fields.get("scaling", {})
    try:
        return from_mapping(ScalingConfig, dict(given), where="scaling")
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
        raise WireError("the agreed scales are damaged") from error


def same_labels(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether two lists name the same labels in the same order, in whatever spelling."""
    return list(map(label_key, names)) == list(map(label_key, others))


def listed_names(names: tuple[str, ...]) -> str:
    """Names as a list that ``site.toml`` takes.

    >>> listed_names(("ok", "a, b"))
    '["ok", "a, b"]'
    """
    return json.dumps(names, ensure_ascii=False)


def inputs_text(shape: tuple[int, ...]) -> str:
    """The shape of inputs in words.

    >>> inputs_text((12,)), inputs_text((3, 32, 48))
    ('vectors of 12 numbers', 'images of 48x32 pixels in 3 channels')
    """
    if len(shape) == 3:
        channels = number_of(shape[0], "channel")
        return f"images of {shape[2]}x{shape[1]} pixels in {channels}"
    if len(shape) == 1:
        return f"vectors of {number_of(shape[0], 'number')}"
    return f"inputs of shape {'x'.join(map(str, shape))}"
