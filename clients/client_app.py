"""The Flower ClientApp: a thin adapter between Flower's messages and the site's answers.

Whatever goes wrong here, the server hears a code alone: exception texts stay at the site.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.site import limits
from clients.site.policy import Work, allow_download
from clients.site.sent_log import REFUSAL, array_bytes, utc_now
from clients.site.site import Site, open_site
from clients.training.accepted_request import body_of, target_of, work_of
from clients.training.task import respond, respond_to_probe
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal
from f2l_fed.wire.messages import Refusal
from f2l_fed.wire.packing import (
    pack_probe_reply,
    pack_refusal,
    pack_update,
    unpack_probe_request,
    unpack_task,
    version_of,
)

SITES_ROOT = "F2L_SITES_ROOT"
"""Environment variable: folder of the simulated sites' folders, set by the simulation."""

APP = "F2L_APP"
"""Environment variable: SHA-256 of the Flower app that the server sent, set by the runner."""

_LOG = logging.getLogger("f2l_fed.site")

app = ClientApp()


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message that is to leave, and its entry in the record of what leaves.

    Args:
        kind: "probe" or "update".
        round: Number of the round; 0 for none.
        content: The message.
        changes: Euclidean length of every change in it.
        work: The work that was asked for it.
    """

    kind: str
    round: int
    content: RecordDict
    work: Work
    changes: tuple[float, ...] = ()


@app.query("probe")
def probe(message: Message, context: Context) -> Message:
    """Answers a server that does not know this site's context yet."""

    def answer(site: Site) -> OutgoingMessage:
        allow_download(site.config.policy, array_bytes(message.content))
        request = unpack_probe_request(message.content)
        reply = respond_to_probe(site, request, app=os.environ.get(APP, ""))
        layout, version = target_of(request.frame).layout, version_of(message.content)
        content = pack_probe_reply(reply, layout, protocol=version)
        return OutgoingMessage("probe", 0, content, work_of(site, request))

    return _answer(message, context, answer)


@app.train("task")
def task(message: Message, context: Context) -> Message:
    """Fine-tunes a generated network, keeps it and returns the updated parameters."""

    def answer(site: Site) -> OutgoingMessage:
        allow_download(site.config.policy, array_bytes(message.content))
        request = unpack_task(message.content)
        update, changes = respond(site, request, app=os.environ.get(APP, ""))
        layout, version = target_of(request.frame).layout, version_of(message.content)
        body = body_of(request.frame)
        content = pack_update(
            update, layout, body=None if body is None else body.layout, protocol=version
        )
        work = work_of(site, request)
        return OutgoingMessage("update", request.round, content, work, changes)

    return _answer(message, context, answer)


def _answer(
    message: Message, context: Context, respond_with: Callable[[Site], OutgoingMessage]
) -> Message:
    site = None
    try:
        site = open_site(site_path(context))
        now = utc_now()
        with limits.within(site.config.limits.task_seconds):
            outgoing = respond_with(site)
        content = outgoing.content
        sent, budget = site.sent, site.budget
        sent.allow(site.config.policy, content, now)
        spent = budget.spent() if budget else None
        sent.record(
            outgoing.kind,
            outgoing.round,
            content,
            now,
            changes=outgoing.changes,
            budget=spent,
            work=outgoing.work,
        )
    except PolicyRefusal as refusal:
        content = _refusal(site, refusal.what)
    except F2LError as error:
        _LOG.error("%s", error)
        content = _refusal(site, type(error).__name__)
    except Exception:
        _LOG.exception("the task failed")
        content = _refusal(site, "failed")
    return Message(content=content, reply_to=message)


def _refusal(site: Site | None, code: str) -> RecordDict:
    """A refusal with the site's name and a code, recorded where that is possible."""
    name = site.config.name if site else ""
    content = pack_refusal(Refusal(site=name, code=code))
    try:
        if site:
            site.sent.record(REFUSAL, 0, content, utc_now())
    except OSError:
        # With a full disk no answer leaves, but the server should hear that none will come.
        _LOG.exception("the refusal could not be recorded")
    return content


def site_path(context: Context) -> Path:
    """The ``site.toml`` of this node.

    In a deployment the operator names it in the SuperNode's node configuration; in a simulation
    it follows from the partition, below a folder that the simulation names in the environment.
    """
    if path := context.node_config.get("site"):
        return Path(str(path))
    root, partition = os.environ.get(SITES_ROOT), context.node_config.get("partition-id")
    if root and partition is not None:
        return Path(root) / f"site-{int(partition):03d}" / "site.toml"
    raise ConfigError(
        "this node has no site",
        expected='a node configuration with site="/path/of/site.toml"',
    )
