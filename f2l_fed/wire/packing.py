"""Messages as Flower records and back, in each version of the protocol that is spoken.

A request is packed in the version that its site speaks; a reply in that of its request, and it
names the highest one that the site speaks. Every field that comes in is checked.
"""

from __future__ import annotations

import re
from types import ModuleType

from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import WireError, shown
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire import protocol_3, protocol_4
from f2l_fed.wire.coding import CODING
from f2l_fed.wire.fields import CountMismatch, config_of, typed
from f2l_fed.wire.messages import ProbeReply, ProbeRequest, Refusal, Task, Update
from f2l_fed.wire.protocol import CODED, LATEST, OLDEST, SPOKEN
from f2l_fed.wire.refusals import FAILED, LONGEST_CODE

__all__ = [
    "CountMismatch",
    "may_code",
    "pack_probe_reply",
    "pack_probe_request",
    "pack_refusal",
    "pack_task",
    "pack_update",
    "unpack_probe_reply",
    "unpack_probe_request",
    "unpack_refusal",
    "unpack_task",
    "unpack_update",
    "version_of",
]

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROTOCOLS: dict[int, ModuleType] = {3: protocol_3, 4: protocol_4}


def version_of(request: RecordDict) -> int:
    """The version of the protocol that a request is in, and its reply has to be in.

    Raises:
        WireError: If it names none that is spoken here.
    """
    version = config_of(request, "frame").get("version")
    if type(version) is not int or version not in _PROTOCOLS:
        raise WireError(
            "the server speaks another version of the protocol",
            expected=f"{OLDEST} to {LATEST}",
            got=str(version),
            remedy="Install the same version of F2L-Fed on both sides.",
        )
    return version


def pack_probe_request(request: ProbeRequest, *, protocol: int = LATEST) -> RecordDict:
    """Packs a probe request.

    Raises:
        WireError: If this version of the protocol has no such message.
    """
    content: RecordDict = _PROTOCOLS[protocol].pack_probe_request(request)
    return content


def unpack_probe_request(content: RecordDict) -> ProbeRequest:
    """Unpacks a probe request.

    Raises:
        WireError: If the content is not a probe request of a version that is spoken here.
    """
    request: ProbeRequest = _PROTOCOLS[version_of(content)].unpack_probe_request(content)
    return request


def pack_task(task: Task, *, protocol: int = LATEST, may_code: bool = False) -> RecordDict:
    """Packs a task.

    Args:
        task: The task.
        protocol: Version of the protocol.
        may_code: Whether its answer may be coded, which protocol 3 can't say. A site that knows no
            coding goes on without.

    Raises:
        WireError: If this version of the protocol has no such message.
    """
    if protocol == protocol_3.VERSION:
        return protocol_3.pack_task(task)
    return protocol_4.pack_task(task, may_code=may_code)


def unpack_task(content: RecordDict) -> Task:
    """Unpacks a task.

    Raises:
        WireError: If the content is not a task of a version that is spoken here.
    """
    task: Task = _PROTOCOLS[version_of(content)].unpack_task(content)
    return task


def may_code(task: RecordDict) -> bool:
    """Whether the answer to a task may be coded in the way that is known here."""
    return config_of(task, "frame").get(CODED) == CODING


def pack_update(
    update: Update,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    protocol: int = LATEST,
    known: Tensor | None = None,
) -> RecordDict:
    """Packs an update.

    Args:
        update: The update.
        layout: Of its networks and probes.
        body: Layout of its body; None without one.
        protocol: Version of the request.
        known: The anchor in the request, (D,) or (B,) float32, if the answer may be coded: with it
            a body, or else networks and probes, as distances from it, heads about their mean.
    """
    if protocol == protocol_3.VERSION:
        content = protocol_3.pack_update(update, layout)
    else:
        content = protocol_4.pack_update(update, layout, body=body, known=known)
    return _naming(content, "update")


def unpack_update(
    content: RecordDict,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    networks: int | None = None,
    episodes: int | None = None,
    known: Tensor | None = None,
) -> Update:
    """Unpacks an update; its records and counts are checked before any tensor is read.

    Args:
        content: The reply.
        layout: Of the network that was sent, or of its adapted part.
        body: Layout of the body that was sent; None without one. Only with a body may there be
            neither networks nor probes.
        networks: Number of networks that were asked for; None takes as many as it names.
        episodes: Number of probes; likewise.
        known: The anchor in the request, as for `pack_update`; None refuses what is coded.

    Raises:
        CountMismatch: If it has another number of them.
        WireError: If the content is not an update, or has anything that was not asked for.
        LayoutMismatch: If it has another layout.
    """
    if _is_oldest(content, "update") and body is None:
        return protocol_3.unpack_update(content, layout, networks=networks, episodes=episodes)
    return protocol_4.unpack_update(
        content, layout, body=body, networks=networks, episodes=episodes, known=known
    )


def pack_probe_reply(
    reply: ProbeReply, layout: WeightLayout, *, protocol: int = LATEST
) -> RecordDict:
    """Packs a probe reply; arguments as of `pack_update`."""
    content: RecordDict = _PROTOCOLS[protocol].pack_probe_reply(reply, layout)
    return _naming(content, "reply")


def unpack_probe_reply(
    content: RecordDict,
    layout: WeightLayout,
    *,
    body: WeightLayout | None = None,
    episodes: int | None = None,
) -> ProbeReply:
    """Unpacks a probe reply; arguments, checks and errors as of `unpack_update`."""
    if _is_oldest(content, "reply") and body is None:
        return protocol_3.unpack_probe_reply(content, layout, episodes=episodes)
    return protocol_4.unpack_probe_reply(content, layout, body=body, episodes=episodes)


def pack_refusal(refusal: Refusal) -> RecordDict:
    """Packs a refusal, which is the same in all versions."""
    fields = ConfigRecord({"site": refusal.site, "code": refusal.code})
    return _naming(RecordDict({"refusal": fields}), "refusal")


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """Unpacks the refusal in a reply; None if the reply is none.

    A site of the oldest protocol may give a text instead of a code: it is cut and made printable.

    Raises:
        WireError: If the code of any other is not a plain code: people will read it.
    """
    if not isinstance(content.get("refusal"), ConfigRecord):
        return None
    head = config_of(content, "refusal")
    code = typed(head, "code", str)
    if SPOKEN not in head:
        code = shown(code, LONGEST_CODE) or FAILED
    elif _CODE.fullmatch(code) is None:
        raise WireError("the refusal has no valid code", expected=_CODE.pattern)
    return Refusal(site=typed(head, "site", str), code=code)


def _is_oldest(reply: RecordDict, head: str) -> bool:
    """Whether a reply is in the protocol whose replies name no version."""
    return "version" not in config_of(reply, head)


def _naming(reply: RecordDict, head: str) -> RecordDict:
    """A reply that names the highest version of this site."""
    fields = reply[head]
    if isinstance(fields, ConfigRecord):
        fields[SPOKEN] = LATEST
    return reply
