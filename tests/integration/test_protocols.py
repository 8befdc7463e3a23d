"""Rounds with sites of two versions: each is asked in the protocol that it speaks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import app as newer_app
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig
from f2l_fed.wire.packing import version_of
from f2l_fed.zoo import Query
from server.federation.folder import Federation
from server.membership.site_protocols import RegisteredProtocols
from server.membership.site_registry import SiteRegistry
from server.rounds.state import RoundState
from tests.support.golden import SITES, copied, message, to_bytes
from tests.support.inline import conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import events, prepared

OLDER, UPDATED, NEWER, DOWNGRADED = 1, 2, 3, 4
REGISTERED = {OLDER: 3, UPDATED: 3, NEWER: 4, DOWNGRADED: 4}


def refusal_of_older(content: RecordDict) -> RecordDict | None:
    """The answer of a site that speaks protocol 3 alone to any other; None if it reads it."""
    if content["frame"]["version"] == 3:
        return None
    return RecordDict({"refusal": ConfigRecord({"site": "", "code": "WireError"})})


class Sites:
    """Four sites of two versions, and the versions of the protocol that each is asked in."""

    def __init__(self, root: Path) -> None:
        self.federation, self.files = prepared(root, "round.quorum=0.1", sites=4)
        self.names = {number: file.parent.name for number, file in enumerate(self.files, 1)}
        self.registry = SiteRegistry(root / "registry")
        now = datetime.now(UTC)
        for node, protocol in REGISTERED.items():
            key = ec.generate_private_key(ec.SECP384R1()).public_key()
            public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
            _, token = self.registry.invite(self.names[node], hours=1, now=now)
            self.registry.enrol(
                self.names[node], token, public, "pem", node, now=now, protocol=protocol
            )
        self.asked: dict[int, list[int]] = defaultdict(list)
        self.replies: dict[int, list[RecordDict]] = defaultdict(list)
        self.app = ClientApp()
        self.app.query("probe")(self.answer)
        self.app.train("task")(self.answer)

    def answer(self, message: Message, context: Context) -> Message:
        node, content = context.node_id, message.content
        self.asked[node].append(version_of(content))
        older = node in (OLDER, DOWNGRADED)
        if older and (refused := refusal_of_older(content)) is not None:
            return Message(refused, reply_to=message)
        reply = newer_app(message, context)
        for head in reply.content.config_records.values() if older else ():
            del head["protocol"]
        self.replies[node].append(reply.content)
        return reply

    def run(
        self, federation: Federation, rounds: int, only: tuple[int, ...] = tuple(REGISTERED)
    ) -> list[RoundState]:
        connected = {node: of for node, of in nodes(self.files).items() if node in only}
        return conductor(
            federation,
            self.files,
            grid=LoopbackGrid(self.app, connected),
            names=lambda: self.names,
            protocols=RegisteredProtocols(self.registry),
        ).run(rounds, len(only))

    def registered(self) -> dict[int, int]:
        return {node: self.registry.active(name).protocol for node, name in self.names.items()}


def test_sites_of_both_versions_take_part_in_the_same_rounds(tmp_path):
    sites = Sites(tmp_path / "out")
    first, second = sites.run(sites.federation, 2)
    names = sites.names
    assert set(first.accepted) == {names[node] for node in (OLDER, UPDATED, NEWER)}
    assert set(second.accepted) == set(names.values())
    # A probe request, then a task a round; in the second one contexts are known.
    assert sites.asked == {
        OLDER: [3, 3, 3],
        UPDATED: [3, 4, 4],
        NEWER: [4, 4, 4],
        DOWNGRADED: [4, 3, 3],
    }
    assert sites.registered() == {OLDER: 3, UPDATED: 4, NEWER: 4, DOWNGRADED: 3}
    assert "weights.0" in sites.replies[OLDER][-1]
    assert set(sites.replies[NEWER][-1]) == {"update", "numbers", "arrays"}
    records = sites.federation.zoo.snapshot().records(round=2)
    assert {record.site for record in records} == set(names.values())


def test_an_older_site_is_told_to_be_updated_where_there_is_a_body(tmp_path):
    sites = Sites(tmp_path / "out")
    federation = sites.federation
    layout = federation.target.layout
    frame = replace(
        federation.frame,
        adapt="head",
        body_layout=layout.digest,
        episodic=EpisodesConfig(),
        head=HeadConfig(),
    )
    with_body = replace(federation)
    with_body.__dict__["frame"] = frame
    (state,) = sites.run(with_body, 1, only=(OLDER, DOWNGRADED))
    assert (state.step, state.sites, state.accepted) == ("failed", 2, ())
    told = {event["node"]: event["reason"] for event in events(federation.root, "site.failed")}
    sentence = "the site speaks protocol 3, which has no messages with a body; "
    assert told[str(OLDER)] == told[str(DOWNGRADED)] == sentence + "update F2L-Fed at the site"
    assert sites.asked == {OLDER: [4], DOWNGRADED: [4]}


class RecordedSite:
    """The site alder of commit 80a4fc7: its recorded answers to the requests of that server."""

    answers: ClassVar = {"probe-request": "probe-reply", "first-task": "first-update"}

    def __init__(self, node: int) -> None:
        self.node, self.heard = node, list[str]()
        self.app = ClientApp()
        self.app.query("probe")(self.answer)
        self.app.train("task")(self.answer)

    def answer(self, received: Message, context: Context) -> Message:
        if context.node_id != self.node:
            return newer_app(received, context)
        name = "first-task" if "task" in received.content else "probe-request"
        then = message(name)
        if name == "probe-request":
            # Recorded in a later round, about the anchor of that round.
            then["anchor"] = received.content["anchor"]
        assert to_bytes(received.content) == to_bytes(then)
        self.heard.append(name)
        return Message(message(self.answers[name]), reply_to=received)


def test_a_recorded_site_is_asked_to_the_byte_as_then_beside_sites_of_today(tmp_path):
    place = copied(tmp_path, "federation", "sites")
    config = Federation.open(place / "federation").config
    federation = Federation.create(tmp_path / "new", config)
    registry = SiteRegistry(federation.root / "registry")
    bound = dict(enumerate(SITES, 1))
    now = datetime.now(UTC)
    for node, name in bound.items():
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        _, token = registry.invite(name, hours=1, now=now)
        # A site of that commit names no version when it registers.
        spoken = {} if name == "alder" else {"protocol": 4}
        registry.enrol(name, token, public, "pem", node, now=now, **spoken)
    files = [place / "sites" / name / "site.toml" for name in SITES]
    recorded = RecordedSite(1)
    (state,) = conductor(
        federation,
        files,
        grid=LoopbackGrid(recorded.app, nodes(files)),
        names=lambda: bound,
        protocols=RegisteredProtocols(registry),
    ).run(1, len(SITES))
    assert recorded.heard == ["probe-request", "first-task"]
    assert (state.step, set(state.accepted)) == ("done", set(SITES))
    assert registry.active("alder").protocol == 3

    def kept(one: Federation) -> dict[str, tuple[int, ...]]:
        return {
            record.key: tuple(record.crc32)
            for record in one.zoo.snapshot().select(Query(site="alder"))
            if record.round == 1
        }

    # The zoo has the bits that the zoo of that commit had.
    assert kept(federation) == kept(Federation.open(place / "federation"))
    assert len(kept(federation)) == config.pairs
