"""Messages between server and site as Flower records; the only file that names their keys.

Down goes a `Task`: candidate networks and what to do with them. Up comes an `Update`: updated
parameters in their layout's names and shapes, the probe update in the same form, and a short
fixed list of numbers. `ProbeRequest` and `ProbeReply` do the same for a site whose context the
server does not know yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import ConfigError, LayoutMismatch, WireError
from f2l_fed.finetune import Recipe
from f2l_fed.layout import WeightLayout

PROBE_ACTION = "query.probe"
TASK_ACTION = "train.task"
NUMBERS = ("examples", "steps", "loss_before", "loss_after", "accuracy_before", "accuracy_after")
_VERSION = 1
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': (\([\d, ]*\)), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every request says, so that a site can build the same network.

    Args:
        lineage: Names the anchor.
        target: Name of the target network.
        classes: Its outputs.
        input_shape: Shape of its inputs.
        layout: Digest of its layout.
        shots: Support examples per class for the probe.
        probe: The probe's recipe.
    """

    lineage: str
    target: str
    classes: int
    input_shape: tuple[int, ...]
    layout: str
    shots: int
    probe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Down: start from the best of these, fine-tune, send back what became of it.

    Args:
        frame: What to build.
        round: Number of the round, from 1.
        release: The release that made the candidates; "" for the anchor.
        recipe: How to fine-tune.
        candidates: (D,) float32 each, by kind ("prior", "sample-0", …); empty means the anchor,
            which the site rebuilds.
    """

    frame: Frame
    round: int
    release: str
    recipe: Recipe
    candidates: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Up: what a site sends, and nothing else.

    Args:
        site: The name the site goes by; trusted only where names are not bound to keys.
        round: As in the task.
        chosen: Kind of the candidate it started from; "anchor" where there was none.
        weights: (D,) float32, the updated parameters.
        probe: (D,) float32, the probe update.
        numbers: Some or all of `NUMBERS`, as the site's policy allows.
    """

    site: str
    round: int
    chosen: str
    weights: Tensor
    probe: Tensor
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """Up: a site's context alone; a new site's first answer."""

    site: str
    probe: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Up: the site's policy forbids what was asked, or it failed; a code and nothing more."""

    site: str
    code: str


def pack_probe_request(frame: Frame) -> RecordDict:
    """A request for the probe alone."""
    return RecordDict({"frame": _pack_frame(frame)})


def unpack_probe_request(content: RecordDict) -> Frame:
    """Raises WireError if it isn't one."""
    return _unpack_frame(content)


def pack_task(task: Task) -> RecordDict:
    """A task as records."""
    head: dict[str, Any] = {
        "round": task.round,
        "release": task.release,
        **_recipe("recipe", task.recipe),
    }
    return RecordDict(
        {
            "frame": _pack_frame(task.frame),
            "task": ConfigRecord(head),
            "candidates": ArrayRecord(
                {kind: Array(vector.numpy()) for kind, vector in task.candidates.items()}
            ),
        }
    )


def unpack_task(content: RecordDict) -> Task:
    """Raises WireError if it isn't a task of this version."""
    head = _config(content, "task")
    return Task(
        frame=_unpack_frame(content),
        round=_typed(head, "round", int),
        release=_typed(head, "release", str),
        recipe=_unrecipe("recipe", head),
        candidates={
            kind: torch.from_numpy(_numpy(array, kind).reshape(-1))
            for kind, array in _arrays(content, "candidates").items()
        },
    )


def pack_update(update: Update, layout: WeightLayout) -> RecordDict:
    """An update as records: only tensors in the shapes of the network's parameters."""
    head: dict[str, Any] = {
        "site": update.site,
        "round": update.round,
        "chosen": update.chosen,
        "layout": layout.digest,
    }
    return RecordDict(
        {
            "update": ConfigRecord(head),
            "weights": _pack_tensors(update.weights, layout),
            "probe": _pack_tensors(update.probe, layout),
            "numbers": MetricRecord(dict(update.numbers)),
        }
    )


def unpack_update(content: RecordDict, layout: WeightLayout) -> Update:
    """Raises WireError or LayoutMismatch if it isn't an update in this layout."""
    head = _config(content, "update")
    _require_layout(head, layout)
    numbers = content.metric_records.get("numbers", MetricRecord())
    if odd := [name for name in numbers if name not in NUMBERS]:
        raise WireError("a number that is not on the list", got=repr(odd[0]))
    return Update(
        site=_typed(head, "site", str),
        round=_typed(head, "round", int),
        chosen=_typed(head, "chosen", str),
        weights=_unpack_tensors(content, "weights", layout),
        probe=_unpack_tensors(content, "probe", layout),
        numbers={name: _number(name, value) for name, value in numbers.items()},
    )


def pack_probe_reply(reply: ProbeReply, layout: WeightLayout) -> RecordDict:
    """A probe reply as records."""
    head: dict[str, Any] = {"site": reply.site, "layout": layout.digest}
    return RecordDict({"reply": ConfigRecord(head), "probe": _pack_tensors(reply.probe, layout)})


def unpack_probe_reply(content: RecordDict, layout: WeightLayout) -> ProbeReply:
    """Raises WireError or LayoutMismatch if it isn't one in this layout."""
    head = _config(content, "reply")
    _require_layout(head, layout)
    return ProbeReply(
        site=_typed(head, "site", str), probe=_unpack_tensors(content, "probe", layout)
    )


def pack_refusal(refusal: Refusal) -> RecordDict:
    """A refusal as records."""
    return RecordDict({"refusal": ConfigRecord({"site": refusal.site, "code": refusal.code})})


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """The refusal in a reply, or None where it holds an answer."""
    if "refusal" not in content.config_records:
        return None
    head = _config(content, "refusal")
    return Refusal(site=_typed(head, "site", str), code=_typed(head, "code", str)[:64])


def _pack_frame(frame: Frame) -> ConfigRecord:
    head: dict[str, Any] = {
        "version": _VERSION,
        "lineage": frame.lineage,
        "target": frame.target,
        "classes": frame.classes,
        "input_shape": list(frame.input_shape),
        "layout": frame.layout,
        "shots": frame.shots,
        **_recipe("probe", frame.probe),
    }
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
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise WireError("the input shape is not a list of sizes", got=repr(shape))
    return Frame(
        lineage=_typed(head, "lineage", str),
        target=_typed(head, "target", str),
        classes=_typed(head, "classes", int),
        input_shape=tuple(int(n) for n in shape),
        layout=_typed(head, "layout", str),
        shots=_typed(head, "shots", int),
        probe=_unrecipe("probe", head),
    )


def _recipe(prefix: str, recipe: Recipe) -> dict[str, Any]:
    return {
        f"{prefix}.steps": recipe.steps,
        f"{prefix}.lr": recipe.lr,
        f"{prefix}.momentum": recipe.momentum,
        f"{prefix}.batch": recipe.batch,
    }


def _unrecipe(prefix: str, head: Mapping[str, Any]) -> Recipe:
    values = {
        "steps": _typed(head, f"{prefix}.steps", int),
        "lr": _typed(head, f"{prefix}.lr", float),
        "momentum": _typed(head, f"{prefix}.momentum", float),
        "batch": _typed(head, f"{prefix}.batch", int),
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


def _pack_tensors(vector: Tensor, layout: WeightLayout) -> ArrayRecord:
    return ArrayRecord(
        {name: Array(tensor.numpy()) for name, tensor in layout.unflatten(vector).items()}
    )


def _unpack_tensors(content: RecordDict, key: str, layout: WeightLayout) -> Tensor:
    arrays = _arrays(content, key)
    tensors = {name: torch.from_numpy(_numpy(arrays[name], name)) for name in arrays}
    layout.require(
        WeightLayout.of({name: tensors[name] for name in [*layout.names] if name in tensors}),
        where=key,
    )
    if extra := [name for name in tensors if name not in layout.names]:
        raise LayoutMismatch("a tensor that the layout does not have", where=key, got=extra[0])
    return layout.flatten(tensors)


def _numpy(array: Array, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    if array.stype != "numpy.ndarray" or array.dtype != "float32":
        raise WireError(
            "a tensor of another type", where=name, expected="float32", got=str(array.dtype)[:32]
        )
    # numpy's own reader evaluates the header, opens archives and reserves whatever size is named.
    shape, header = tuple(array.shape), _NPY_HEADER.match(array.data)
    if (
        header is None
        or header[1] != repr(shape).encode()
        or len(array.data) - header.end() != 4 * math.prod(shape)
    ):
        raise WireError("a tensor that is not what it says", where=name)
    return np.frombuffer(array.data, np.float32, offset=header.end()).reshape(shape).copy()


def _config(content: RecordDict, key: str) -> Mapping[str, Any]:
    if key not in content.config_records:
        raise WireError("a part of the message is missing", expected=key)
    return content.config_records[key]


def _arrays(content: RecordDict, key: str) -> ArrayRecord:
    if key not in content.array_records:
        raise WireError("a part of the message is missing", expected=key)
    return content.array_records[key]


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


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError("a number that is not finite", where=name, got=repr(value)[:32])
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
