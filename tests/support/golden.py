"""Copies of the folders and messages that commit 80a4fc7 wrote; `tests/golden/v3/README.md`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from clients.client_app import app
from f2l_fed.wire.messages import PROBE_ACTION, TASK_ACTION
from server.federation import settings
from server.rounds.state import RoundState
from tests.support.inline import conductor, nodes
from tests.support.loopback import LoopbackGrid

V3 = Path(__file__).parents[1] / "golden" / "v3"
SITES = ("alder", "birch", "cedar", "dune", "elm", "fir")


def copied(to: Path, *names: str) -> Path:
    """A folder with copies of some of the golden folders."""
    for name in names:
        shutil.copytree(V3 / name, to / name)
    return to


def finish(place: Path, name: str, rounds: int = 0) -> list[RoundState]:
    """Finishes the interrupted round of a copied federation with its copied sites, then more."""
    federation, _ = settings.refresh(place / name)
    files = [place / "sites" / site / "site.toml" for site in SITES]
    bound = dict(enumerate(SITES, 1))
    grid = LoopbackGrid(app, nodes(files))
    return conductor(federation, files, grid=grid, names=lambda: bound).run(rounds, len(SITES))


def asked(place: Path) -> dict[str, list[str]]:
    """Kinds of the answers that each copied site has sent."""
    found = {}
    for site in SITES:
        path = place / "sites" / site / "state" / "sent.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found[site] = [json.loads(line)["kind"] for line in lines]
    return found


def message(name: str) -> RecordDict:
    """A recorded message of wire protocol 3."""
    data = (V3 / "wire" / f"{name}.bin").read_bytes()
    return recorddict_from_proto(RecordDictProto.FromString(data))


def to_bytes(content: RecordDict) -> bytes:
    """A message as it was recorded."""
    return recorddict_to_proto(content).SerializeToString(deterministic=True)


def held_by(name: str) -> dict[str, Any]:
    """Every field that a recorded message holds."""
    about = json.loads((V3 / "wire" / f"{name}.json").read_text())
    gives: dict[str, Any] = about["gives"]
    return gives


def answer(site_file: Path, name: str) -> RecordDict:
    """The answer of a site to a recorded message."""
    action = PROBE_ACTION if name == "probe-request" else TASK_ACTION
    grid = LoopbackGrid(app, {1: {"site": str(site_file)}})
    (reply,) = grid.send_and_receive([Message(message(name), 1, action)])
    return reply.content
