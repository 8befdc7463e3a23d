"""Protocol 4: a record of fields, and one of arrays in which all rows of one kind are one array.

Every array is an object of its own for Flower, which asks for each one singly; so there are few.
Anchor and body are arrays apart from the candidates, since they are the same for all sites and
Flower keeps what is the same only once. Heads travel with as many rows as their site has classes,
which the width of their array tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets.head_rows import classes_of_width, padded
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.coded_rows import coded_array, read_rows, read_vector, width_of
from f2l_fed.wire.coding import CODING
from f2l_fed.wire.fields import (
    chosen_kinds,
    config_of,
    counted,
    declared_numbers,
    named,
    pack_settings,
    require_count,
    require_layout,
    typed,
    unpack_settings,
)
from f2l_fed.wire.frames import ALL, pack_frame, unpack_frame
from f2l_fed.wire.messages import ProbeReply, ProbeRequest, Task, Update
from f2l_fed.wire.protocol import ARRAYS, CODED
from f2l_fed.wire.task_fields import (
    candidates_of,
    chain_of,
    kinds_of,
    pack_kinds,
    pack_temperatures,
    temperatures_of,
)
from f2l_fed.wire.tensors import arrays_of, read_array, read_shaped

VERSION = 4
"""The version that messages name."""


def pack_probe_request(request: ProbeRequest) -> RecordDict:
    """Packs a probe request."""
    head = pack_frame(request.frame, VERSION) | {"chain": list(request.chain)}
    return RecordDict({"frame": ConfigRecord(head), **_arrays(anchor=request.anchor)})


def unpack_probe_request(content: RecordDict) -> ProbeRequest:
    """Unpacks a probe request.

    Raises:
        WireError: If the content is not a probe request of this version.
    """
    head = config_of(content, "frame")
    frame, arrays = unpack_frame(head), _arrays_in(content)
    _require_arrays(arrays, {"anchor"})
    return ProbeRequest(frame=frame, anchor=_vector(arrays, "anchor"), chain=chain_of(head, frame))


def pack_task(task: Task, *, may_code: bool = False) -> RecordDict:
    """Packs a task: the fields of the frame and its own are one record."""
    rows = [row for candidates in task.candidates for row in candidates.values()]
    head = pack_frame(task.frame, VERSION) | {
        "round": task.round,
        "release": task.release,
        **pack_kinds(task.candidates),
        "chain": list(task.chain),
        **pack_temperatures(task.temperatures),
        "keep": task.keep,
        **pack_settings("recipe", task.recipe),
        **({CODED: CODING} if may_code else {}),
    }
    candidates = torch.stack(rows) if rows else None
    arrays = _arrays(anchor=task.anchor, body=task.body, candidates=candidates)
    return RecordDict({"frame": ConfigRecord(head), **arrays})


def unpack_task(content: RecordDict) -> Task:
    """Unpacks a task.

    Raises:
        WireError: If the content is not a task of this version.
    """
    head = config_of(content, "frame")
    if "round" not in head:
        raise WireError("a part of the message is missing", expected="round")
    frame, arrays = unpack_frame(head), _arrays_in(content)
    kinds = kinds_of(head, frame)
    known = {"anchor"} | ({"candidates"} if kinds else set())
    _require_arrays(arrays, known | ({"body"} if frame.adapt != ALL else set()))
    return Task(
        frame=frame,
        anchor=_vector(arrays, "anchor"),
        round=counted(head, "round", least=0),
        release=named(head, "release") if head.get("release") != "" else "",
        recipe=unpack_settings(Recipe, "recipe", head),
        candidates=candidates_of(arrays, kinds),
        body=_vector(arrays, "body"),
        chain=chain_of(head, frame),
        temperatures=temperatures_of(head),
        keep=counted(head, "keep"),
    )


def pack_update(
    update: Update,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    known: Tensor | None = None,
) -> RecordDict:
    """Packs an update; one without networks has no array of them, nor of probes."""
    parts = {"weights": update.weights, "probes": update.probes, "body": update.body}
    arrays = _arrays(**parts)
    if known is not None:
        _code(arrays, parts, known, {"body"} if body is not None else {"weights", "probes"})
    head: dict[str, Any] = {
        "version": VERSION,
        "site": update.site,
        "round": update.round,
        **({"chosen": list(update.chosen)} if update.chosen else {}),
        "episodes": len(update.probes),
        "layout": layout.digest,
        **({} if body is None else {"body_layout": body.digest}),
    }
    return RecordDict(
        {
            "update": ConfigRecord(head),
            "numbers": MetricRecord(dict(update.numbers)),
            **arrays,
        }
    )


def unpack_update(
    content: RecordDict,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    networks: int | None = None,
    episodes: int | None = None,
    known: Tensor | None = None,
) -> Update:
    """Unpacks an update; its records and counts are checked before any array is read.

    Args:
        content: The reply.
        layout: Of the adapted part.
        body: Layout of the body that was sent; None without one. A site may keep its body to
            itself, or its networks and probes, but not both.
        networks: Number of networks that were asked for; None takes as many as it names.
        episodes: Number of probes; likewise.
        known: The anchor that was sent, where the answer may be coded; see `packing`.

    Raises:
        CountMismatch: If it has another number of them.
        WireError: If the content is not an update, or has anything that was not asked for.
        LayoutMismatch: If it has another layout.
    """
    head = _reply_head(content, "update")
    require_layout(typed(head, "layout", str), layout)
    if body is not None:
        require_layout(typed(head, "body_layout", str), body)
    numbers = declared_numbers(content)
    chosen, probes = chosen_kinds(head), typed(head, "episodes", int)
    has_body = body is not None and "body" in _arrays_in(content)
    bare = has_body and not chosen and probes == 0
    if not bare:
        _require_rows("chosen", len(chosen), networks)
        _require_rows("episodes", probes, episodes)
    _require_records(content, {"update", "numbers", ARRAYS})
    arrays = _arrays_in(content)
    names = set() if bare else {"weights", "probes"}
    _require_arrays(arrays, names | ({"body"} if body is not None else set()))
    if body is not None and not bare:
        _require_one_width(arrays)
    read = _rows if body is None else _heads
    return Update(
        site=typed(head, "site", str),
        round=typed(head, "round", int),
        chosen=chosen,
        weights=read(arrays, "weights", len(chosen), layout, known),
        probes=read(arrays, "probes", probes, layout, known),
        numbers=numbers,
        body=_read_body(arrays, body, known) if body is not None and has_body else None,
    )


def pack_probe_reply(reply: ProbeReply, layout: WeightLayout) -> RecordDict:
    """Packs a probe reply."""
    head: dict[str, Any] = {
        "version": VERSION,
        "site": reply.site,
        "episodes": len(reply.probes),
        "layout": layout.digest,
    }
    return RecordDict({"reply": ConfigRecord(head), **_arrays(probes=reply.probes)})


def unpack_probe_reply(
    content: RecordDict,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    episodes: int | None = None,
) -> ProbeReply:
    """Unpacks a probe reply; arguments, checks and errors as of `unpack_update`."""
    head = _reply_head(content, "reply")
    require_layout(typed(head, "layout", str), layout)
    probes = typed(head, "episodes", int)
    bare = body is not None and probes == 0
    if not bare:
        _require_rows("episodes", probes, episodes)
    _require_records(content, {"reply", ARRAYS})
    arrays = _arrays_in(content)
    _require_arrays(arrays, set() if bare else {"probes"})
    read = _rows if body is None else _heads
    return ProbeReply(site=typed(head, "site", str), probes=read(arrays, "probes", probes, layout))


def _reply_head(content: RecordDict, key: str) -> Mapping[str, Any]:
    head = config_of(content, key)
    if head.get("version") != VERSION:
        raise WireError("the site answers in another version", expected=str(VERSION))
    return head


def _arrays(**tensors: Tensor | None) -> dict[str, ArrayRecord]:
    """The record of arrays, without those that are absent or have no rows; none without any."""
    found = {
        name: Array(tensor.contiguous().numpy())
        for name, tensor in tensors.items()
        if tensor is not None and len(tensor)
    }
    return {ARRAYS: ArrayRecord(found)} if found else {}


def _code(
    record: Mapping[str, ArrayRecord],
    parts: Mapping[str, Tensor | None],
    known: Tensor,
    relative: set[str],
) -> None:
    """Codes the arrays of a record where that is smaller, some of them relative to the anchor."""
    for name in record.get(ARRAYS, {}):
        rows = parts[name]
        coded = None if rows is None else coded_array(rows, known if name in relative else None)
        if coded is not None:
            record[ARRAYS][name] = coded


def _arrays_in(content: RecordDict) -> Mapping[str, Array]:
    return arrays_of(content, ARRAYS) if ARRAYS in content else {}


def _require_arrays(arrays: Mapping[str, Array], known: set[str]) -> None:
    if odd := arrays.keys() - known:
        raise WireError("an array that was not asked for", got=repr(min(odd)))


def _require_records(content: RecordDict, known: set[str]) -> None:
    """Refuses a reply with other records than these, without a look into any of them."""
    if odd := content.keys() - known:
        raise WireError("a record that was not asked for", got=repr(min(odd)))


def _require_rows(name: str, found: int, asked: int | None) -> None:
    require_count(found, asked)
    if found < 1:
        raise WireError("the message has no networks or probes", where=name, got=str(found))


def _rows(
    arrays: Mapping[str, Array],
    name: str,
    count: int,
    layout: WeightLayout,
    known: Tensor | None = None,
) -> Tensor:
    """(count, D) float32, checked against the layout's size before it is read."""
    if not count:
        return torch.empty(0, layout.size)
    if known is None:
        return read_shaped(arrays, name, (count, layout.size))
    return read_rows(arrays, name, (count, layout.size), known)


def _heads(
    arrays: Mapping[str, Array],
    name: str,
    count: int,
    largest: WeightLayout,
    known: Tensor | None = None,
) -> Tensor:
    """(count, H) float32, heads for any number of classes, padded to the most.

    They are never relative to the anchor, which is a body.
    """
    if not count:
        return torch.empty(0, largest.size)
    width = width_of(arrays[name], name) if name in arrays else None
    if width is not None:
        classes_of_width(width, largest)
    read = read_shaped if known is None else read_rows
    return padded(read(arrays, name, (count, width)), largest)


def _read_body(arrays: Mapping[str, Array], body: WeightLayout, known: Tensor | None) -> Tensor:
    """(B,) float32, checked as `_rows`."""
    if known is None or not known.numel():
        return read_shaped(arrays, "body", (body.size,))
    return read_vector(arrays, "body", known)


def _require_one_width(arrays: Mapping[str, Array]) -> None:
    """Refuses heads of one site for different numbers of classes."""
    widths = [
        width_of(arrays[name], name) if name in arrays else None for name in ("weights", "probes")
    ]
    if widths[0] != widths[1]:
        raise WireError(
            "a site's heads have different numbers of classes",
            expected=f"{widths[0]} numbers in each",
            got=str(widths[1]),
        )


def _vector(arrays: Mapping[str, Array], name: str) -> Tensor | None:
    """(D,) float32 of any size, which the receiver checks; None if it is absent."""
    if name not in arrays:
        return None
    return read_array(arrays[name], name).reshape(-1)
