"""The Flower ClientApp: a thin adapter between Flower's messages and the trainer.

Whatever goes wrong here, what the server hears is a code: exception texts stay at the site.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.site import limits, policy, sent_log
from clients.site.model_store import save_model
from clients.site.site import Site, open_site
from clients.training import fine_tuning
from clients.training.private_training import private_probes, private_work
from clients.training.probe_cache import probes_of
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal
from f2l_fed.wire.messages import ProbeReply, Refusal
from f2l_fed.wire.packing import (
    pack_probe_reply,
    pack_refusal,
    pack_update,
    unpack_probe_request,
    unpack_task,
)

SITES_ROOT = "F2L_SITES_ROOT"
"""Environment variable: folder of the simulated sites' folders, set by the simulation."""

APP = "F2L_APP"
"""Environment variable: SHA-256 of the Flower app that the server sent, set by the runner."""

_LOG = logging.getLogger("f2l_fed.site")

app = ClientApp()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to leave, and what `SentLog.record` says of it."""

    kind: str
    round: int
    content: RecordDict
    changes: tuple[float, ...] = ()


@app.query("probe")
def probe(message: Message, context: Context) -> Message:
    """Answers a server that does not know this site's context yet."""

    def respond(site: Site) -> Answer:
        request = unpack_probe_request(message.content)
        frame = request.frame
        policy.allow_answer(site.config.policy, "probe", os.environ.get(APP, ""))
        policy.allow_request(site.config.policy, frame.target, frame.probe, len(site.train.y))
        target = fine_tuning.target_of(frame)
        site.require_fit(frame.input_shape, frame.classes)
        fine_tuning.require_anchor(request, target)
        made = (private_probes if site.budget else probes_of)(site, request, target)
        reply = ProbeReply(site=site.config.name, probes=made)
        return Answer("probe", 0, pack_probe_reply(reply, target.layout))

    return _answer(message, context, respond)


@app.train("task")
def task(message: Message, context: Context) -> Message:
    """Fine-tunes a generated network, keeps it and returns the updated parameters."""

    def respond(site: Site) -> Answer:
        asked = unpack_task(message.content)
        policy.allow_answer(site.config.policy, "update", os.environ.get(APP, ""))
        site.sent.allow_round(site.config.policy, asked.round, sent_log.utc_now())
        policy.allow_request(
            site.config.policy, asked.frame.target, asked.recipe, len(site.train.y)
        )
        target = fine_tuning.target_of(asked.frame)
        site.require_fit(asked.frame.input_shape, asked.frame.classes)
        fine_tuning.require_anchor(asked, target)
        tuned = fine_tuning.fine_tune_episodes(site, asked, target)
        best = fine_tuning.best_of(tuned)
        made = fine_tuning.model_of(site, asked, target, best, sent_log.utc_now())
        save_model(site.state, made, fine_tuning.start_of(made, best, asked.recipe))
        if site.budget:
            update, change = private_work(site, asked, target)
            changes: tuple[float, ...] = (change,)
        else:
            update = fine_tuning.update_of(site, asked, target, tuned)
            changes = tuple(one.change for one in tuned)
        numbers = policy.allowed_numbers(site.config.policy, update.numbers)
        update = replace(update, numbers=numbers)
        return Answer("update", asked.round, pack_update(update, target.layout), changes)

    return _answer(message, context, respond)


def _answer(message: Message, context: Context, respond: Callable[[Site], Answer]) -> Message:
    site = None
    try:
        site = open_site(site_path(context))
        now = sent_log.utc_now()
        with limits.within(site.config.limits.task_seconds):
            answer = respond(site)
        content = answer.content
        site.sent.allow(site.config.policy, content, now)
        budget = site.budget.spent() if site.budget else None
        site.sent.record(
            answer.kind, answer.round, content, now, changes=answer.changes, budget=budget
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
    """The site's name and a code, recorded where that can be done."""
    name = site.config.name if site else ""
    content = pack_refusal(Refusal(site=name, code=code))
    try:
        if site:
            site.sent.record(sent_log.REFUSAL, 0, content, sent_log.utc_now())
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
