"""A dishonest site: cheap answers may not be dear work, and no text of a site breaks a view."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict

from f2l_fed.wire import tensors
from f2l_fed.wire.messages import Update
from f2l_fed.wire.packing import pack_update, unpack_task, unpack_update
from f2l_fed.wire.reply_bound import reply_bound
from server.control import client as control_client
from server.control.client import Connection
from server.federation.folder import FEDERATION_FILE, Federation
from server.rounds import state_files
from server.rounds.journal import Journal
from server.superlink.reply_guard import ReplyGuard, assembled_bytes
from tests.attacks.peers.dishonest_site import (
    declares,
    dishonest_round,
    further_records,
    long_name,
    more_networks,
    more_probes,
    swollen_reply,
)
from tests.support.conducted import after_quick_round
from tests.support.control_service import DONE, ask, make_certificates
from tests.support.small_federation import events, prepared

SIX_MB = 6_000_000
ROWS = ("weights", "probes")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("identities") / "certificates")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all tensors that the centre reads."""
    names: list[str] = []
    real = tensors.read_array
    monkeypatch.setattr(
        tensors, "read_array", lambda array, name: (names.append(name), real(array, name))[1]
    )
    return names


def honest(federation: Federation, protocol: int) -> int:
    """Number of tensors in an honest site's replies of a round, and in those that it is asked."""
    each = len(federation.target.layout.names)
    return each * (1 + 2 * federation.config.probe.episodes) if protocol == 3 else 3


def tensors_of_replies(read: list[str], federation: Federation) -> int:
    return len([name for name in read if name in {*federation.target.layout.names, *ROWS}])


def codes(federation: Federation, number: int) -> dict[str, str]:
    return {line.site: line.code for line in Journal.of(federation.root / "rounds", number).read()}


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (more_networks(1000), "count"),
        (more_probes(1000), "count"),
        (further_records(1000), "garbage"),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_more_than_was_asked_is_refused_before_any_of_it_is_read(
    tmp_path, read, tamper, code, protocol
):
    federation, files = prepared(tmp_path / "out", sites=3)
    state = dishonest_round(federation, files, tasks={1: tamper}, protocol=protocol)
    assert codes(federation, 1)["site-000"] == code
    assert state.accepted == ("site-001", "site-002")
    # Every site's probe reply, and the two honest updates; anchors are not replies.
    assert tensors_of_replies(read, federation) <= 3 * honest(federation, protocol)
    assert (
        "than was asked" in state.rejected["site-000"] or "not asked" in state.rejected["site-000"]
    )


@pytest.mark.parametrize("tamper", [more_probes(1000), further_records(1000)])
@pytest.mark.parametrize("protocol", [3, 4])
def test_a_probe_reply_with_more_than_was_asked_is_refused_unread(tmp_path, read, tamper, protocol):
    federation, files = prepared(tmp_path / "out", "round.quorum=0.5", sites=3)
    state = dishonest_round(federation, files, probes={1: tamper}, protocol=protocol)
    assert state.accepted == ("site-001", "site-002")
    assert tensors_of_replies(read, federation) <= 3 * honest(federation, protocol)
    (failed,) = events(federation.root, "site.failed")
    assert "asked" in failed["reason"]


def test_a_late_reply_with_more_than_was_asked_is_refused_unread(tmp_path, read):
    settings = ("round.timeout_s=0.5", "round.quorum=0.5")
    federation, files = prepared(tmp_path / "out", *settings, sites=3)

    def once(reply: RecordDict) -> RecordDict:
        return more_networks(1000)(reply) if reply["update"]["round"] == 1 else reply

    dishonest_round(federation, files, tasks={1: once}, late=1)
    (late,) = events(federation.root, "site.late")
    assert (late["round"], late["site"], late["code"]) == (1, "site-000", "count")
    assert tensors_of_replies(read, federation) <= 9 * honest(federation, 4)


def test_a_reply_is_looked_through_a_fixed_number_of_times(tmp_path, monkeypatch):
    """Flower's views of a reply's records walk through all of them: one for each row is n x n."""
    federation, _ = prepared(tmp_path / "out", sites=2)
    layout, rows, walks = federation.target.layout, 50, []
    update = Update(
        site="a",
        round=1,
        chosen=("anchor",) * rows,
        weights=torch.zeros(rows, layout.size),
        probes=torch.ones(rows, layout.size),
        numbers={},
    )
    content = pack_update(update, layout)
    for name in ("array_records", "config_records", "metric_records"):
        view = getattr(RecordDict, name)

        def counted(self: RecordDict, view: Any = view) -> Any:
            walks.append(view)
            return view.fget(self)

        monkeypatch.setattr(RecordDict, name, property(counted))
    assert len(unpack_update(content, layout).weights) == rows
    assert len(walks) <= 4


def test_a_piece_that_an_array_names_many_times_is_counted_as_often_and_never_assembled():
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    message, objects = swollen_reply(1_000_000, 300)
    bound = reply_bound(small_layout(), 4)
    sent = sum(map(len, objects.values()))
    assert sent < 1_100_000 < bound.bytes < assembled_bytes(message.object_id, objects)
    tracemalloc.start()
    try:
        reply = ReplyGuard(inflate_object_from_contents, bound)(message.object_id, objects)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.has_error()
    assert reply.metadata.reply_to_message_id == "request"
    assert peak < 20_000_000


def test_an_honest_reply_is_below_its_bound_once_it_is_assembled():
    message, objects = swollen_reply(1_000_000, 1)
    assert assembled_bytes(message.object_id, objects) == sum(map(len, objects.values()))


def small_layout() -> Any:
    from f2l_fed.targets.layout import WeightLayout

    return WeightLayout(("w",), ((250_000,),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_after", 1e308),
        ("loss_before", 1e308),
        ("accuracy_after", 1.5),
        ("accuracy_before", -0.5),
        ("examples", 1e300),
        ("steps", 1e9),
    ],
)
def test_an_absurd_number_is_refused_with_its_name(tmp_path, name, value):
    federation, files = prepared(tmp_path / "out", sites=3)
    state = dishonest_round(federation, files, tasks={1: declares(name, value)})
    assert state.accepted == ("site-001", "site-002")
    assert f"an impossible declared number ({name})" in state.rejected["site-000"]
    assert codes(federation, 1)["site-000"] == "admission"


async def _views(to: Connection) -> tuple[Any, Any, Any]:
    rounds, sites = await control_client.list_rounds(to), await control_client.list_sites(to)
    watched = control_client.watch_events(to, since_run=True)
    try:
        return rounds, sites, await anext(watched)
    finally:
        await watched.aclose()


def test_a_long_name_of_a_tensor_breaks_no_view(tmp_path, certificates):
    federation, files = prepared(tmp_path / "out", sites=3)
    with (federation.root / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "run.started", "time": 1.0, "run": 1}) + "\n")
    dishonest_round(federation, files, tasks={1: long_name(SIX_MB)})
    rounds, sites, _ = ask(federation.root, certificates, "viewer-1", _views)
    for reason in (rounds[0].rejected["site-000"], sites[0].last_rejection):
        assert len(reason) <= 1000
        assert reason.isprintable()
        assert "not asked for" in reason
    assert (federation.root / "events.jsonl").stat().st_size < 100_000


def test_a_federation_that_stored_long_texts_is_shown(tmp_path, certificates):
    rounds = tmp_path / "rounds"
    rounds.mkdir()
    long = replace(DONE, rejected={"site-3": "\x1b" + "a" * SIX_MB}, quarantined={"b": "é" * 10**6})
    state_files.save_state(rounds, long)
    lines = [
        {"event": "run.started", "time": 1.0, "run": 1},
        {"event": "site.rejected", "time": 2.0, "site": "site-3", "reason": "a" * SIX_MB},
        {"event": "round.finished", "time": 3.0, "round": 1},
    ]
    path = tmp_path / "events.jsonl"

    def append(*events: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)

    async def views(to: Connection) -> tuple[Any, Any, Any]:
        rounds, sites = await control_client.list_rounds(to), await control_client.list_sites(to)
        watched = control_client.watch_events(to)
        # The watch begins at the end of the file: it is there once it tells something new.
        coming = asyncio.ensure_future(anext(watched))
        while not coming.done():
            append(lines[0])
            await asyncio.wait({coming}, timeout=0.3)
        append(*lines[1:])
        try:
            while (event := await anext(watched))["event"] == "run.started":
                pass
        finally:
            await watched.aclose()
        return rounds, sites, event

    listed, sites, event = ask(tmp_path, certificates, "viewer-1", views)
    assert event["event"] == "round.finished"
    assert len(listed[0].rejected["site-3"]) <= 1000
    assert [site.name for site in sites] == ["b", "site-1", "site-2", "site-3"]
    assert all(len(site.last_rejection) <= 1100 for site in sites)


def test_five_thousand_sites_with_reasons_fit_into_their_messages(tmp_path, certificates):
    rounds = tmp_path / "rounds"
    rounds.mkdir()
    reasons = {f"site-{index:058d}": "é" * 1000 for index in range(5000)}
    state_files.save_state(rounds, replace(DONE, sites=5000, accepted=(), rejected=reasons))

    async def views(to: Connection) -> tuple[Any, Any]:
        return await control_client.list_rounds(to), await control_client.list_sites(to)

    (listed,), sites = ask(tmp_path, certificates, "viewer-1", views)
    assert listed.rejected.keys() == reasons.keys()
    assert all(reason.startswith("é" * 50) for reason in listed.rejected.values())
    assert [site.name for site in sites] == sorted(reasons)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Federation, list[Path]]:
    return after_quick_round(tmp_path / "out")


def candidates_of(messages: list[Message]) -> list[tuple[str, torch.Tensor]]:
    return [
        (kind, start)
        for message in messages
        for starts in unpack_task(message.content).candidates
        for kind, start in starts.items()
    ]


def copies(federation: Federation, offered: list[tuple[str, torch.Tensor]]) -> set[str]:
    """Kinds of the candidates that are a stored network of a site."""
    snapshot = federation.zoo.snapshot()
    stored = torch.from_numpy(snapshot.weights(snapshot.records(round=1)))
    return {kind for kind, start in offered if bool((stored == start).all(dim=1).any())}


@pytest.mark.parametrize(("nearest", "found"), [(False, set()), (True, {"nearest"})])
def test_no_task_holds_another_sites_network_unless_it_is_asked_for(asked, nearest, found):
    federation, files = asked
    path = federation.root / FEDERATION_FILE
    values = json.loads(path.read_text())
    # As in a folder of an earlier version, which has no such key.
    values["candidates"].pop("nearest", None)
    if nearest:
        values["candidates"]["nearest"] = True
    path.write_text(json.dumps(values))
    federation = Federation.open(federation.root)
    heard: list[Message] = []
    dishonest_round(federation, files, heard=heard)
    offered = candidates_of(heard)
    assert {kind for kind, _ in offered} >= {"prior", "global_mean", "sample-0"}
    assert copies(federation, offered) == found
