"""Sites that take part in real rounds and lie in what they send."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from flwr.app import Context, Message

from clients.client_app import app as honest_app
from f2l_fed.admission import Submission
from f2l_fed.wire.messages import Task, Update
from f2l_fed.wire.packing import pack_update, unpack_task, unpack_update
from server.federation.folder import Federation
from server.rounds.coordinator import Coordinator
from tests.support.attacks import Attack
from tests.support.inline import answering, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.recorded import submission_of
from tests.support.small import rng

BodyAttack = Callable[[Update, Task, torch.Generator], Update]
"""An honest update on a body, its task and a source of chance, and what is sent instead."""


def with_body_liars(federation: Federation, lies: Mapping[str, BodyAttack]) -> Coordinator:
    """As `with_liars`, where all sites share a body."""

    def task(message: Message, context: Context) -> Message:
        asked = unpack_task(message.content)
        reply = honest_app(message, context)
        layouts = {"layout": federation.target.layout, "body": federation.body_layout}
        update = unpack_update(reply.content, **layouts)
        if update.site in lies:
            told = lies[update.site](update, asked, rng(int(update.site[-3:])))
            reply.content = pack_update(told, **layouts)
        return reply

    files = sorted((federation.root / "sites").glob("*/site.toml"))
    return conductor(federation, files, grid=LoopbackGrid(answering(task), nodes(files)))


def with_liars(federation: Federation, lies: Mapping[str, Attack]) -> Coordinator:
    """A conductor of the prepared sites of a simulation's folder, some of which lie.

    What others have sent in the same round is known to a liar as far as they came before it.

    Args:
        federation: Its folder.
        lies: By site, what is done to its honest submission.
    """
    seen: dict[int, list[Submission]] = {}

    def task(message: Message, context: Context) -> Message:
        asked = unpack_task(message.content)
        reply = honest_app(message, context)
        update = unpack_update(reply.content, federation.target.layout)
        one = submission_of(federation, asked, update)
        others = seen.setdefault(asked.round, [])
        others.append(one)
        if update.site in lies:
            chance = rng(int(update.site[-3:]))
            told = lies[update.site](one, others, federation.target, chance)
            update = dataclasses.replace(
                update, weights=told.weights, probes=told.probes, numbers=told.numbers
            )
            reply.content = pack_update(update, federation.target.layout)
        return reply

    files = sorted((federation.root / "sites").glob("*/site.toml"))
    return conductor(federation, files, grid=LoopbackGrid(answering(task), nodes(files)))
