"""Messages that are to leave a site: allowed by its policy and recorded before they do."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from clients.site.policy import Work, allow_download
from clients.site.sent_log import array_bytes, utc_now
from clients.site.site import Site
from clients.training.accepted_request import body_of, target_of, work_of
from clients.training.task import respond, respond_to_probe
from f2l_fed.wire.packing import (
    may_code,
    pack_probe_reply,
    pack_update,
    unpack_probe_request,
    unpack_task,
    unpack_update,
    version_of,
)


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message that is to leave, and its entry in the record of what leaves.

    Args:
        kind: "probe" or "update".
        round: Number of the round; 0 for none.
        content: The message.
        changes: Euclidean length of every change in it.
        work: The work that was asked for it.
        read: A coded message with the numbers that its receiver reads; None if it has them itself.
    """

    kind: str
    round: int
    content: RecordDict
    work: Work
    changes: tuple[float, ...] = ()
    read: RecordDict | None = None

    def record(self, site: Site) -> None:
        """Records the message, which may leave then.

        Raises:
            PolicyRefusal: If it is too large or one too many for a day.
        """
        now, budget = utc_now(), site.budget
        site.sent.allow(site.config.policy, self.content, now)
        site.sent.record(
            self.kind,
            self.round,
            self.content,
            now,
            read=self.read,
            changes=self.changes,
            budget=budget.spent() if budget else None,
            work=self.work,
        )


def probe_message(site: Site, content: RecordDict, *, app: str | None) -> OutgoingMessage:
    """The answer to a packed probe request; see `clients.training.task.respond_to_probe`.

    Raises:
        WireError: If the content is not a probe request.
        PolicyRefusal, LayoutMismatch, DataError: As in `clients.training.task.respond`.
    """
    allow_download(site.config.policy, array_bytes(content))
    request = unpack_probe_request(content)
    reply = respond_to_probe(site, request, app=app)
    layout, version = target_of(request.frame).layout, version_of(content)
    packed = pack_probe_reply(reply, layout, protocol=version)
    return OutgoingMessage("probe", 0, packed, work_of(site, request))


def update_message(site: Site, content: RecordDict, *, app: str) -> OutgoingMessage:
    """The answer to a packed task; see `clients.training.task.respond`.

    Raises:
        WireError: If the content is not a task.
        PolicyRefusal, LayoutMismatch, DataError: As in `clients.training.task.respond`.
    """
    allow_download(site.config.policy, array_bytes(content))
    request = unpack_task(content)
    update, changes = respond(site, request, app=app)
    layout, version = target_of(request.frame).layout, version_of(content)
    body = body_of(request.frame)
    whole = None if body is None else body.layout
    known = request.anchor if may_code(content) else None
    packed = pack_update(update, layout, body=whole, protocol=version, known=known)
    read = None
    if known is not None:
        told = unpack_update(packed, layout, body=whole, known=known)
        read = pack_update(told, layout, body=whole, protocol=version)
    return OutgoingMessage("update", request.round, packed, work_of(site, request), changes, read)
