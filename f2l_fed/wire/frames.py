"""The frame of a request as fields of its first record, in all versions of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f2l_fed.errors import WireError
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe, SharedConfig
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.wire.fields import counted, digest, named, pack_settings, unpack_settings
from f2l_fed.wire.messages import Frame

ALL, HEAD = "all", "head"
"""Values of `Frame.adapt`."""

_SHARED, _OWN = "shared", "own"


def pack_frame(frame: Frame, version: int) -> dict[str, Any]:
    """A frame as fields, with the version of the protocol."""
    head: dict[str, Any] = {
        "version": version,
        "lineage": frame.lineage,
        "target": frame.target,
        "classes": frame.classes,
        "input_shape": list(frame.input_shape),
        "layout": frame.layout,
        "episodes": frame.episodes,
        "shots": frame.shots,
        **pack_settings("probe", frame.probe),
    }
    # Only where they say something: sites of older versions do without.
    if frame.shared_labels:
        head["labels"] = _SHARED
    if frame.nearest:
        head["nearest"] = True
    if frame.to_sites:
        head["to_sites"] = True
    if frame.shared:
        head |= {"share": True} | pack_settings("shared", frame.shared)
    if frame.frozen:
        head |= {"backbone": frame.frozen.digest, "features": frame.frozen.features}
        head |= {"adapted": frame.frozen.adapted} if frame.frozen.adapted else {}
    if frame.scales:
        head["scales"] = frame.scales
    if frame.adapt != ALL:
        head |= {"adapt": frame.adapt, "body_layout": frame.body_layout}
        head |= pack_settings("episodic", frame.episodic) if frame.episodic else {}
        head |= pack_settings("head", frame.head) if frame.head else {}
    return head


def unpack_frame(head: Mapping[str, Any]) -> Frame:
    """The inverse of `pack_frame`.

    Raises:
        WireError: If a field is missing or not as agreed.
    """
    labels = head.get("labels", _OWN)
    if labels not in (_OWN, _SHARED):
        raise WireError("labels is neither own nor shared", got=repr(labels)[:32])
    shape = head.get("input_shape")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise WireError("the input shape is not a list of sizes", got=repr(shape)[:32])
    return Frame(
        lineage=named(head, "lineage"),
        target=named(head, "target"),
        classes=counted(head, "classes"),
        input_shape=tuple(shape),
        layout=named(head, "layout"),
        episodes=counted(head, "episodes"),
        shots=counted(head, "shots"),
        probe=unpack_settings(Recipe, "probe", head),
        shared_labels=labels == _SHARED,
        nearest=_truth(head, "nearest"),
        to_sites=_truth(head, "to_sites"),
        shared=unpack_settings(SharedConfig, "shared", head) if "share" in head else None,
        frozen=_unpack_frozen(head),
        scales=digest(head["scales"], "scales") if "scales" in head else "",
        **_unpack_body(head),
    )


def _truth(head: Mapping[str, Any], key: str) -> bool:
    """A field that is there only where it is true."""
    value = head.get(key, False)
    if not isinstance(value, bool):
        raise WireError(f"{key} is neither true nor false", got=repr(value)[:32])
    return value


def _unpack_frozen(head: Mapping[str, Any]) -> FrozenPart | None:
    if "backbone" not in head:
        return None
    adapted = counted(head, "adapted") if "adapted" in head else 0
    return FrozenPart(digest(head["backbone"], "backbone"), counted(head, "features"), adapted)


def _unpack_body(head: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a frame that only one with a body has; none of them without."""
    adapt = head.get("adapt", ALL)
    if adapt not in (ALL, HEAD):
        raise WireError("the adapted part is neither all nor head", got=repr(adapt)[:32])
    if adapt == ALL:
        return {}
    return {
        "adapt": adapt,
        "body_layout": digest(head.get("body_layout"), "body_layout"),
        "episodic": unpack_settings(EpisodesConfig, "episodic", head),
        "head": unpack_settings(HeadConfig, "head", head),
    }
