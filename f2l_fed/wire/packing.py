"""Messages as Flower records and back; the only file with the names of their keys.

Networks and probes of a reply are tensors by the names and shapes of their layout; the rest is a
short fixed list of settings and numbers. Every field that comes in is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import ConfigError, LayoutMismatch, WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import NUMBERS, Frame, ProbeReply, ProbeRequest, Refusal, Task, Update
from f2l_fed.wire.tensors import arrays_of, pack_rows, read_array, unpack_rows

_VERSION = 3
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{1,200}")
_SHARED, _OWN = "shared", "own"


class CountMismatch(WireError):
    """A reply with another number of networks or probes than was asked."""


def pack_probe_request(request: ProbeRequest) -> RecordDict:
    """Packs a probe request."""
    return RecordDict({"frame": _pack_frame(request.frame), **_pack_anchor(request.anchor)})


def unpack_probe_request(content: RecordDict) -> ProbeRequest:
    """Unpacks a probe request.

    Raises:
        WireError: If the content is not a probe request of this version.
    """
    return ProbeRequest(frame=_unpack_frame(content), anchor=_unpack_anchor(content))


def pack_task(task: Task) -> RecordDict:
    """Packs a task."""
    head: dict[str, Any] = {
        "round": task.round,
        "release": task.release,
        "episodes": len(task.candidates),
        **_pack_recipe("recipe", task.recipe),
    }
    return RecordDict(
        {
            "frame": _pack_frame(task.frame),
            "task": ConfigRecord(head),
            **_pack_anchor(task.anchor),
            **{
                f"candidates.{episode}": ArrayRecord(
                    {kind: Array(vector.numpy()) for kind, vector in candidates.items()}
                )
                for episode, candidates in enumerate(task.candidates)
            },
        }
    )


def unpack_task(content: RecordDict) -> Task:
    """Unpacks a task.

    Raises:
        WireError: If the content is not a task of this version.
    """
    head = _config(content, "task")
    return Task(
        frame=_unpack_frame(content),
        anchor=_unpack_anchor(content),
        round=_counted(head, "round", least=0),
        release=_named(head, "release") if head.get("release") != "" else "",
        recipe=_unpack_recipe("recipe", head),
        candidates=tuple(
            _unpack_candidates(content, f"candidates.{episode}")
            for episode in range(_counted(head, "episodes", least=0))
        ),
    )


def pack_update(update: Update, layout: WeightLayout) -> RecordDict:
    """Packs an update: only tensors in the shapes of the network's parameters."""
    head: dict[str, Any] = {
        "site": update.site,
        "round": update.round,
        "chosen": list(update.chosen),
        "episodes": len(update.probes),
        "layout": layout.digest,
    }
    return RecordDict(
        {
            "update": ConfigRecord(head),
            **pack_rows("weights", update.weights, layout),
            **pack_rows("probe", update.probes, layout),
            "numbers": MetricRecord(dict(update.numbers)),
        }
    )


def unpack_update(
    content: RecordDict,
    layout: WeightLayout,
    *,
    networks: int | None = None,
    episodes: int | None = None,
) -> Update:
    """Unpacks an update; its records and counts are checked before any tensor is read.

    Args:
        content: The reply.
        layout: Of the network that was sent.
        networks: Number of networks that were asked for; None takes as many as it names.
        episodes: Number of probes; likewise.

    Raises:
        CountMismatch: If it has another number of them.
        WireError: If the content is not an update, or has a record that was not asked for.
        LayoutMismatch: If it has another layout.
    """
    head = _config(content, "update")
    _require_layout(head, layout)
    numbers = content.get("numbers", MetricRecord())
    if not isinstance(numbers, MetricRecord):
        raise WireError("the declared numbers are no numbers", where="numbers")
    if odd := [name for name in numbers if name not in NUMBERS]:
        raise WireError("an unknown declared number", got=repr(odd[0]))
    chosen, probes = _typed(head, "chosen", list), _typed(head, "episodes", int)
    _require_count(len(chosen), networks)
    _require_count(probes, episodes)
    if not chosen or not all(isinstance(kind, str) for kind in chosen):
        raise WireError("the chosen starts are not a list of names", got=repr(chosen)[:32])
    _require_records(content, ("update", "numbers"), weights=len(chosen), probe=probes)
    return Update(
        site=_typed(head, "site", str),
        round=_typed(head, "round", int),
        chosen=tuple(chosen),
        weights=unpack_rows(content, "weights", len(chosen), layout),
        probes=unpack_rows(content, "probe", probes, layout),
        numbers={name: _number(name, value) for name, value in numbers.items()},
    )


def pack_probe_reply(reply: ProbeReply, layout: WeightLayout) -> RecordDict:
    """Packs a probe reply."""
    head: dict[str, Any] = {
        "site": reply.site,
        "episodes": len(reply.probes),
        "layout": layout.digest,
    }
    return RecordDict({"reply": ConfigRecord(head), **pack_rows("probe", reply.probes, layout)})


def unpack_probe_reply(
    content: RecordDict, layout: WeightLayout, *, episodes: int | None = None
) -> ProbeReply:
    """Unpacks a probe reply; arguments and checks as of `unpack_update`.

    Raises:
        CountMismatch: If it has another number of probes than was asked.
        WireError: If the content is not a probe reply, or has a record that was not asked for.
        LayoutMismatch: If it has another layout.
    """
    head = _config(content, "reply")
    _require_layout(head, layout)
    probes = _typed(head, "episodes", int)
    _require_count(probes, episodes)
    _require_records(content, ("reply",), probe=probes)
    return ProbeReply(
        site=_typed(head, "site", str), probes=unpack_rows(content, "probe", probes, layout)
    )


def pack_refusal(refusal: Refusal) -> RecordDict:
    """Packs a refusal."""
    return RecordDict({"refusal": ConfigRecord({"site": refusal.site, "code": refusal.code})})


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """Unpacks the refusal in a reply; None if the reply is none.

    Raises:
        WireError: If its code is not a plain code: people will read it.
    """
    if not isinstance(content.get("refusal"), ConfigRecord):
        return None
    head = _config(content, "refusal")
    code = _typed(head, "code", str)
    if _CODE.fullmatch(code) is None:
        raise WireError("the refusal has no valid code", expected=_CODE.pattern)
    return Refusal(site=_typed(head, "site", str), code=code)


def _unpack_candidates(content: RecordDict, key: str) -> dict[str, Tensor]:
    arrays = arrays_of(content, key)
    if not arrays:
        raise WireError("an episode has no candidates", where=key)
    for kind in arrays:
        _require_name(kind, key)
    return {kind: read_array(array, kind).reshape(-1) for kind, array in arrays.items()}


def _pack_frame(frame: Frame) -> ConfigRecord:
    head: dict[str, Any] = {
        "version": _VERSION,
        "lineage": frame.lineage,
        "target": frame.target,
        "classes": frame.classes,
        "input_shape": list(frame.input_shape),
        "layout": frame.layout,
        "episodes": frame.episodes,
        "shots": frame.shots,
        **_pack_recipe("probe", frame.probe),
    }
    # Only where they say something: sites of older versions do without.
    if frame.shared_labels:
        head["labels"] = _SHARED
    if frame.nearest:
        head["nearest"] = True
    return ConfigRecord(head)


def _unpack_frame(content: RecordDict) -> Frame:
    head = _config(content, "frame")
    if head.get("version") != _VERSION:
        raise WireError(
            "the server speaks another version of the protocol",
            expected=str(_VERSION),
            got=str(head.get("version")),
            remedy="Install the same version of F2L-Fed on both sides.",
        )
    shape = head.get("input_shape")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise WireError("the input shape is not a list of sizes", got=repr(shape)[:32])
    labels, nearest = head.get("labels", _OWN), head.get("nearest", False)
    if labels not in (_OWN, _SHARED):
        raise WireError("labels is neither own nor shared", got=repr(labels)[:32])
    if not isinstance(nearest, bool):
        raise WireError("nearest is neither true nor false", got=repr(nearest)[:32])
    return Frame(
        lineage=_named(head, "lineage"),
        target=_named(head, "target"),
        classes=_counted(head, "classes"),
        input_shape=tuple(shape),
        layout=_named(head, "layout"),
        episodes=_counted(head, "episodes"),
        shots=_counted(head, "shots"),
        probe=_unpack_recipe("probe", head),
        shared_labels=labels == _SHARED,
        nearest=nearest,
    )


def _pack_recipe(prefix: str, recipe: Recipe) -> dict[str, Any]:
    return {
        f"{prefix}.steps": recipe.steps,
        f"{prefix}.lr": recipe.lr,
        f"{prefix}.momentum": recipe.momentum,
        f"{prefix}.batch": recipe.batch,
        f"{prefix}.max_gradient_norm": recipe.max_gradient_norm,
    }


def _unpack_recipe(prefix: str, head: Mapping[str, Any]) -> Recipe:
    values = {
        "steps": _typed(head, f"{prefix}.steps", int),
        "lr": _typed(head, f"{prefix}.lr", float),
        "momentum": _typed(head, f"{prefix}.momentum", float),
        "batch": _typed(head, f"{prefix}.batch", int),
        "max_gradient_norm": _typed(head, f"{prefix}.max_gradient_norm", float),
    }
    try:
        return Recipe(**values)
    except ConfigError as error:
        raise WireError(
            error.what,
            where=f"{prefix}.{error.where}",
            expected=error.expected,
            got=error.got,
        ) from error


def _pack_anchor(anchor: Tensor | None) -> dict[str, ArrayRecord]:
    return {} if anchor is None else {"anchor": ArrayRecord({"w": Array(anchor.numpy())})}


def _unpack_anchor(content: RecordDict) -> Tensor | None:
    if "anchor" not in content.array_records:
        return None
    arrays = arrays_of(content, "anchor")
    if list(arrays) != ["w"]:
        raise WireError("the anchor is not one tensor", got=repr(list(arrays))[:32])
    return read_array(arrays["w"], "anchor").reshape(-1)


def _config(content: RecordDict, key: str) -> Mapping[str, Any]:
    # Flower's `config_records` would walk through all records each time.
    found = content.get(key)
    if not isinstance(found, ConfigRecord):
        raise WireError("a part of the message is missing", expected=key)
    return found


def _require_count(found: int, asked: int | None) -> None:
    if asked is not None and found != asked:
        raise CountMismatch(
            "another number of networks or probes than was asked",
            expected=str(asked),
            got=str(found),
        )


def _require_records(content: RecordDict, plain: tuple[str, ...], **rows: int) -> None:
    """Refuses a reply with other records than these, without a look into any of them.

    Args:
        content: The reply.
        plain: Names of single records.
        rows: Number of records "name.0", "name.1", … by name.
    """
    # A message names any number of rows: only as many are listed as there are records.
    known = {f"{name}.{i}" for name, n in rows.items() for i in range(min(n, len(content)))}
    if odd := content.keys() - known - set(plain):
        raise WireError("a record that was not asked for", got=repr(min(odd)))


def _typed(head: Mapping[str, Any], key: str, kind: type) -> Any:
    value = head.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise WireError(
            "a field of the message has the wrong type",
            where=key,
            expected=kind.__name__,
            got=type(value).__name__,
        )
    return value


def _counted(head: Mapping[str, Any], key: str, *, least: int = 1) -> int:
    """A whole number that is not below the least."""
    value: int = _typed(head, key, int)
    if value < least:
        raise WireError("a number is too small", where=key, expected=f">= {least}", got=str(value))
    return value


def _named(head: Mapping[str, Any], key: str) -> str:
    """A name that is fit to be printed and kept."""
    value: str = _typed(head, key, str)
    _require_name(value, key)
    return value


def _require_name(value: str, where: str) -> None:
    if _NAME.fullmatch(value) is None:
        raise WireError("not a plain name", where=where, expected=_NAME.pattern)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError("a declared number is not finite", where=name, got=repr(value)[:32])
    return float(value)


def _require_layout(head: Mapping[str, Any], layout: WeightLayout) -> None:
    digest = _typed(head, "layout", str)
    if digest != layout.digest:
        raise LayoutMismatch(
            "the reply has another layout",
            expected=layout.digest[:12],
            got=digest[:12],
            remedy="Install the same version of F2L-Fed and of the target on both sides.",
        )
