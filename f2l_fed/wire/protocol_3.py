"""Protocol 3, which older sites speak: every tensor of every network is an array of its own.

Networks and probes of a reply are tensors by the names and shapes of their layout, a record each;
a candidate is a vector in the record of its episode. There are no messages with a body.
"""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.fields import (
    chosen_kinds,
    config_of,
    counted,
    declared_numbers,
    named,
    pack_settings,
    require_count,
    require_layout,
    require_name,
    typed,
    unpack_settings,
)
from f2l_fed.wire.frames import ALL, pack_frame, unpack_frame
from f2l_fed.wire.messages import Frame, ProbeReply, ProbeRequest, Task, Update
from f2l_fed.wire.tensors import arrays_of, pack_rows, read_array, unpack_rows

VERSION = 3
"""The version that requests name."""


def pack_probe_request(request: ProbeRequest) -> RecordDict:
    """Packs a probe request.

    Raises:
        WireError: If it has a body.
    """
    _require_no_body(request.frame)
    frame = ConfigRecord(pack_frame(request.frame, VERSION))
    return RecordDict({"frame": frame, **_pack_anchor(request.anchor)})


def unpack_probe_request(content: RecordDict) -> ProbeRequest:
    """Unpacks a probe request.

    Raises:
        WireError: If the content is not a probe request of this version.
    """
    return ProbeRequest(frame=_unpack_frame(content), anchor=_unpack_anchor(content))


def pack_task(task: Task) -> RecordDict:
    """Packs a task.

    Raises:
        WireError: If it has a body.
    """
    _require_no_body(task.frame)
    head: dict[str, Any] = {
        "round": task.round,
        "release": task.release,
        "episodes": len(task.candidates),
        **pack_settings("recipe", task.recipe),
    }
    return RecordDict(
        {
            "frame": ConfigRecord(pack_frame(task.frame, VERSION)),
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
    head = config_of(content, "task")
    return Task(
        frame=_unpack_frame(content),
        anchor=_unpack_anchor(content),
        round=counted(head, "round", least=0),
        release=named(head, "release") if head.get("release") != "" else "",
        recipe=unpack_settings(Recipe, "recipe", head),
        candidates=tuple(
            _unpack_candidates(content, f"candidates.{episode}")
            for episode in range(counted(head, "episodes", least=0))
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
    head = config_of(content, "update")
    require_layout(typed(head, "layout", str), layout)
    numbers = declared_numbers(content)
    chosen, probes = chosen_kinds(head), typed(head, "episodes", int)
    require_count(len(chosen), networks)
    require_count(probes, episodes)
    if not chosen:
        raise WireError("the chosen starts are not a list of names", got="[]")
    _require_records(content, ("update", "numbers"), weights=len(chosen), probe=probes)
    return Update(
        site=typed(head, "site", str),
        round=typed(head, "round", int),
        chosen=chosen,
        weights=unpack_rows(content, "weights", len(chosen), layout),
        probes=unpack_rows(content, "probe", probes, layout),
        numbers=numbers,
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
    head = config_of(content, "reply")
    require_layout(typed(head, "layout", str), layout)
    probes = typed(head, "episodes", int)
    require_count(probes, episodes)
    _require_records(content, ("reply",), probe=probes)
    return ProbeReply(
        site=typed(head, "site", str), probes=unpack_rows(content, "probe", probes, layout)
    )


def _unpack_candidates(content: RecordDict, key: str) -> dict[str, Tensor]:
    arrays = arrays_of(content, key)
    if not arrays:
        raise WireError("an episode has no candidates", where=key)
    for kind in arrays:
        require_name(kind, key)
    return {kind: read_array(array, kind).reshape(-1) for kind, array in arrays.items()}


def _unpack_frame(content: RecordDict) -> Frame:
    frame = unpack_frame(config_of(content, "frame"))
    _require_no_body(frame)
    return frame


def _require_no_body(frame: Frame) -> None:
    if frame.adapt != ALL:
        raise WireError(
            f"protocol {VERSION} has no messages with a body that all sites share",
            remedy="Install a newer version of F2L-Fed at the site.",
        )


def _pack_anchor(anchor: Tensor | None) -> dict[str, ArrayRecord]:
    return {} if anchor is None else {"anchor": ArrayRecord({"w": Array(anchor.numpy())})}


def _unpack_anchor(content: RecordDict) -> Tensor | None:
    if "anchor" not in content.array_records:
        return None
    arrays = arrays_of(content, "anchor")
    if list(arrays) != ["w"]:
        raise WireError("the anchor is not one tensor", got=repr(list(arrays))[:32])
    return read_array(arrays["w"], "anchor").reshape(-1)


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
