"""A registered site that answers what it is asked, but not honestly.

An attack is a `Tampering`: a function from the records of an honest reply to those that are sent.
To write the next one, add such a function here (or one that makes it, as `more_networks` does) and
give it to `dishonest_round` with the number of the site that uses it; every other site is honest.
What can be done with objects on Flower's own way, below the records, is in `swollen_reply`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
)

from clients.client_app import app as honest_app
from f2l_fed.wire.messages import TASK_ACTION
from f2l_fed.wire.protocol import ARRAYS, LATEST
from server.federation.folder import Federation
from server.rounds.state import RoundState
from tests.support.inline import conductor, nodes
from tests.support.loopback import LoopbackGrid

Tampering = Callable[[RecordDict], RecordDict]


def more_networks(count: int) -> Tampering:
    """The first network of an update, so many times; in protocol 3 all of them are one object."""

    def tamper(reply: RecordDict) -> RecordDict:
        head = ConfigRecord({**reply["update"], "chosen": ["anchor"] * count})
        return RecordDict({**_repeated(reply, "weights", count), "update": head})

    return tamper


def more_probes(count: int) -> Tampering:
    """The first probe of an update or a probe reply, so many times."""

    def tamper(reply: RecordDict) -> RecordDict:
        key = "update" if "update" in reply else "reply"
        head = ConfigRecord({**reply[key], "episodes": count})
        return RecordDict({**_repeated(reply, "probes", count), key: head})

    return tamper


def further_records(count: int) -> Tampering:
    """So many more records than anybody asked for."""

    def tamper(reply: RecordDict) -> RecordDict:
        rows = {f"more.{index}": _first(reply) for index in range(count)}
        return RecordDict({**reply, **rows})

    return tamper


def declares(name: str, value: float) -> Tampering:
    """An update with another declared number."""

    def tamper(reply: RecordDict) -> RecordDict:
        numbers = {**reply["numbers"], name: value}
        return RecordDict({**reply, "numbers": MetricRecord(numbers)})

    return tamper


def long_name(letters: int) -> Tampering:
    """One more tensor, whose name has so many letters and a control character."""

    def tamper(reply: RecordDict) -> RecordDict:
        name = "\x1b" + "a" * letters
        record = ARRAYS if ARRAYS in reply else "weights.0"
        arrays = {**reply[record], name: Array(np.zeros(1, np.float32))}
        return RecordDict({**reply, record: ArrayRecord(arrays)})

    return tamper


def _repeated(reply: RecordDict, name: str, count: int) -> dict[str, ArrayRecord]:
    """The records of a reply with so many of its first rows of one kind."""
    if ARRAYS in reply:
        rows = np.repeat(reply[ARRAYS][name].numpy()[:1], count, axis=0)
        return {**reply, ARRAYS: ArrayRecord({**reply[ARRAYS], name: Array(rows)})}
    key = {"weights": "weights", "probes": "probe"}[name]
    return {**reply, **{f"{key}.{index}": reply[f"{key}.0"] for index in range(count)}}


def _first(reply: RecordDict) -> ArrayRecord:
    """The first record of tensors in a reply."""
    return next(iter(reply.array_records.values()))


class _InOne:
    """All sites speak the same version of the protocol, and may code their answers."""

    coded = True

    def __init__(self, version: int) -> None:
        self._version = version

    def of(self, _: str, /) -> int:
        return self._version

    def note(self, _: str, spoken: int, /) -> None:
        """Keeps nothing."""


def dishonest_round(
    federation: Federation,
    files: list[Path],
    *,
    tasks: Mapping[int, Tampering] | None = None,
    probes: Mapping[int, Tampering] | None = None,
    heard: list[Message] | None = None,
    late: int | None = None,
    protocol: int = LATEST,
) -> RoundState:
    """Conducts a round in which some sites tamper with their replies.

    Args:
        federation: A prepared folder.
        files: The sites' ``site.toml``; the first is site 1.
        tasks: By number of a site, its tampering with replies to tasks.
        probes: The same with replies to probe requests.
        heard: Gets every task as a curious site keeps it.
        late: Number of a site whose reply to its first task comes in a second round.
        protocol: Version in which all sites are asked.
    """
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        return _answer(message, context, probes or {})

    @app.train("task")
    def task(message: Message, context: Context) -> Message:
        if heard is not None:
            heard.append(message)
        return _answer(message, context, tasks or {})

    finished = federation.root / "releases/00001/release.json"
    grid = _LateGrid(app, nodes(files), late, finished) if late else LoopbackGrid(app, nodes(files))
    base = conductor(federation, files, grid=grid, protocols=_InOne(protocol))
    return base.run(2 if late else 1, len(files))[-1]


class _LateGrid(LoopbackGrid):
    """Keeps back a node's replies to tasks until a file is there."""

    def __init__(
        self, app: ClientApp, configs: dict[int, dict[str, str]], late: int, until: Path
    ) -> None:
        super().__init__(app, configs)
        self._late, self._until = late, until

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([id for id in message_ids if not self._held_back(id)])

    def _held_back(self, id: str) -> bool:
        about = self._waiting[id].metadata if id in self._waiting else None
        return (
            about is not None
            and (about.dst_node_id, about.message_type) == (self._late, TASK_ACTION)
            and not self._until.exists()
        )


def _answer(message: Message, context: Context, lies: Mapping[int, Tampering]) -> Message:
    reply = honest_app(message, context)
    if context.node_id in lies:
        reply.content = lies[context.node_id](reply.content)
    return reply


def swollen_reply(piece_bytes: int, times: int) -> tuple[Message, dict[str, bytes]]:
    """A reply whose only array names its one piece so many times.

    Returns:
        The message, and its objects by id as they are sent: hardly more bytes than the piece has.
    """
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=7,
        dst_node_id=1,
        reply_to_message_id="request",
        group_id="",
        created_at=1e9,
        ttl=60.0,
        message_type="train",
    )
    array = Array(np.zeros(piece_bytes // 4, np.float32))
    content = RecordDict({"weights.0": ArrayRecord({"w": array})})
    message = make_message(metadata, content)
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {id: part.deflate() for id, part in get_all_nested_objects(message).items()}
    body = array.deflate().partition(b"\x00")[2]
    once, often = b'"arraychunk_ids": [0]', b'"arraychunk_ids": [%s]' % b",".join([b"0"] * times)
    assert once in body
    objects[array.object_id] = add_header_to_object_body(body.replace(once, often), array)
    return message, objects
