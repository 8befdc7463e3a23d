"""What honest sites send in real rounds, next to what they were sent, for the screening."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.client_app import app as honest_app
from f2l_fed.admission.submission import Submission
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.probe import anchor
from f2l_fed.wire.messages import Task, Update
from f2l_fed.wire.packing import unpack_task, unpack_update
from server.federation.folder import Federation
from tests.support.inline import answering, conductor, nodes
from tests.support.loopback import LoopbackGrid


def recorded_rounds(federation: Federation, count: int) -> list[list[Submission]]:
    """Conducts rounds with the prepared sites of a simulation's folder.

    Returns:
        For each round the submissions of all sites, by name.
    """
    found: dict[int, list[Submission]] = {}
    app = _recording(federation, lambda one: found.setdefault(one.round, []).append(one))
    files = sorted((federation.root / "sites").glob("*/site.toml"))
    conductor(federation, files, grid=LoopbackGrid(app, nodes(files))).run(count, len(files))
    return [sorted(found[number], key=lambda one: one.site) for number in sorted(found)]


def _recording(federation: Federation, keep: Callable[[Submission], None]) -> ClientApp:
    def task(message: Message, context: Context) -> Message:
        asked = unpack_task(message.content)
        reply = honest_app(message, context)
        update = unpack_update(reply.content, federation.target.layout)
        keep(submission_of(federation, asked, update))
        return reply

    return answering(task)


def submission_of(federation: Federation, asked: Task, update: Update) -> Submission:
    """An update next to what the site was sent."""
    first = {ANCHOR: anchor(federation.target, federation.config.lineage)}
    pairs = list(zip(asked.candidates or (first,), update.chosen, strict=True))
    starts = [episode[kind] for episode, kind in pairs]
    others = [w for episode, kind in pairs for k, w in episode.items() if k != kind]
    return Submission(
        site=update.site,
        round=update.round,
        parent=asked.release,
        weights=update.weights,
        starts=torch.stack(starts),
        probes=update.probes,
        numbers=update.numbers,
        steps=asked.recipe.steps,
        others=torch.stack(others) if others else None,
    )


def save(rounds: Sequence[Sequence[Submission]], path: Path) -> None:
    """Keeps recorded rounds in a file that `load` reads."""
    torch.save([[dataclasses.asdict(one) for one in round] for round in rounds], path)


def load(path: Path) -> list[list[Submission]]:
    """Reads what `save` wrote."""
    rounds = torch.load(path, weights_only=True)
    return [[Submission(**one) for one in round] for round in rounds]
