"""What bounds a round, and what ends it in its middle: deadlines, windows, full disks, aborts."""

from __future__ import annotations

import errno
import resource
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from flwr.app import Context, Message
from torch import Tensor

from clients.client_app import app as honest_app
from f2l_fed.config import RoundConfig
from f2l_fed.errors import ZooError
from f2l_fed.events import Listener
from f2l_fed.wire.messages import TASK_ACTION
from f2l_fed.zoo import Commit, NewRecord, Zoo
from server.federation.body_updates import BodyUpdates
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds import state_files
from server.rounds.journal import Journal
from server.rounds.run_cache import RunCache
from server.rounds.state import ExchangeResult, Interrupted, begun, exchanged
from tests.support.inline import InlineBackend, answering, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import ANY_RELEASE, events, prepared


class SlowGrid(LoopbackGrid):
    """Some nodes don't answer tasks before a file is there."""

    def __init__(
        self, configs: Mapping[int, dict[str, str]], slow: Collection[int], until: Path
    ) -> None:
        super().__init__(honest_app, configs)
        self._slow, self._until, self.most = frozenset(slow), until, 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = list(message_ids)
        self.most = max(self.most, len(asked))
        return super().pull_messages([i for i in asked if self._ready(i)])

    def _ready(self, identifier: str) -> bool:
        if identifier not in self._waiting or self._until.exists():
            return True
        about = self._waiting[identifier].metadata
        return about.dst_node_id not in self._slow or about.message_type != TASK_ACTION


def test_a_share_of_the_sites_is_a_whole_number_of_them():
    some = ExchangeResult(
        asked=100,
        accepted=tuple(f"s{n}" for n in range(55)),
        rejected={},
        bytes_up=0,
        bytes_down=0,
        accuracy_before=0.0,
        accuracy_after=0.0,
        seconds=1.0,
    )
    # 0.55 times 100 is a little more than 55 to a computer.
    assert exchanged(begun(1, "", 100), some, RoundConfig(quorum=0.55)).step == "retrain"
    assert exchanged(begun(1, "", 100), some, RoundConfig(quorum=0.551)).step == "failed"


def test_silent_nodes_hold_introductions_no_longer_than_the_deadline(tmp_path):
    federation, files = prepared(
        tmp_path / "out", "round.timeout_s=300", "round.deadline_s=2", "round.in_flight=1"
    )
    grid = LoopbackGrid(honest_app, nodes(files), silent={4})
    (state,) = conductor(federation, files, grid=grid).run(1, 6)
    # Whose turn came after the silent one takes part as one that has joined.
    assert (state.step, len(state.accepted), state.sites) == ("done", 5, 6)
    (silent,) = events(tmp_path / "out", "site.failed")
    assert (silent["node"], silent["code"]) == ("4", "silent")


def test_answers_that_are_overdue_are_not_fetched_all_at_once(tmp_path):
    settings = ("round.timeout_s=0.3", "round.in_flight=1", "round.quorum=0.1")
    federation, files = prepared(tmp_path / "out", *settings)
    finished = tmp_path / "out/releases/00001/release.json"
    grid = SlowGrid(nodes(files), slow={3, 4, 5, 6}, until=finished)
    first, _ = conductor(federation, files, grid=grid).run(2, 6)
    assert first.accepted == ("site-000", "site-001")
    late = {line["site"]: line["code"] for line in events(tmp_path / "out", "site.late")}
    assert late == dict.fromkeys(("site-002", "site-003", "site-004", "site-005"), "accepted")
    # One task that is out, and one of those that are overdue.
    assert grid.most == 2


class ReturningGrid(SlowGrid):
    """Node 3 says nothing to its task while another node speaks for its site."""

    def __init__(self, files: list[Path], until: Path) -> None:
        super().__init__({**nodes(files), 7: {"site": str(files[2])}}, slow={3}, until=until)
        self._gone = False

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        about = [(m.metadata.dst_node_id, m.metadata.message_type) for m in sent]
        self._gone |= (3, TASK_ACTION) in about
        return super().push_messages(sent)

    def get_node_ids(self) -> Iterable[int]:
        return [n for n in super().get_node_ids() if n != (3 if self._gone else 7)]


def test_an_answer_of_the_node_that_a_site_was_before_is_not_wanted_any_more(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5")
    finished = tmp_path / "out/releases/00001/release.json"
    grid = ReturningGrid(files, until=finished)
    first, second = conductor(federation, files, grid=grid).run(2, 6)
    assert (len(first.accepted), len(second.accepted)) == (6, 6)
    assert events(tmp_path / "out", "site.late") == []
    keys = [record.key for record in federation.zoo.snapshot().records(round=1)]
    assert len(keys) == len(set(keys)) == 12


@pytest.mark.parametrize("moment", ["site.accepted", "retraining.started", "retraining.finished"])
def test_on_a_full_disk_a_round_is_interrupted_and_goes_on_once_there_is_room(tmp_path, moment):
    federation, files = prepared(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: str, _: Mapping[str, object]) -> None:
        if event == moment:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    try:
        with pytest.raises(Interrupted, match="go on with the round"):
            conductor(federation, files, listener=fill).run(1, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (state,) = conductor(federation, files).run(0, 6)
    assert (state.step, len(state.accepted)) == ("done", 6)
    keys = [record.key for record in federation.zoo.snapshot().records()]
    assert len(keys) == len(set(keys)) == 12
    assert federation.zoo.verify() == ()


class WatchedBackend(InlineBackend):
    """Says when it is at work as the gate."""

    def __init__(self, federation: Federation, listener: Listener) -> None:
        super().__init__(federation)
        self._listener = listener

    def objections(self, id: str) -> tuple[str, ...]:
        found = super().objections(id)
        self._listener("gate", {})
        return found


@pytest.mark.parametrize(
    "moment", ["site.accepted", "retraining.started", "retraining.finished", "gate"]
)
def test_a_round_that_was_aborted_at_any_step_reaches_no_site(tmp_path, moment):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE)
    folder = federation.root / "rounds"

    def abort(event: str, _: Mapping[str, object]) -> None:
        if event == moment and state_files.load_state(folder, 1).step != "failed":
            state_files.save_state(
                folder, round_state.failed(state_files.load_state(folder, 1), "aborted by admin")
            )

    backend = WatchedBackend(federation, abort)
    (state,) = conductor(federation, files, listener=abort, backend=backend).run(1, 6)
    assert (state.step, state.reason) == ("failed", "aborted by admin")
    assert state_files.load_state(folder, 1) == state
    assert federation.releases.promoted() is None
    # What came is kept, and counts for the next one.
    (following,) = conductor(federation, files).run(1, 6)
    assert (following.number, following.promoted) == (2, True)


def test_answers_screened_before_an_error_of_the_same_look_are_kept(tmp_path, monkeypatch):
    body = ("target.adapt=head", "episodes.first=6", "episodes.steps=4", "head.pairs=3")
    federation, files = prepared(tmp_path / "out", *body)
    keep, kept = RunCache.keep_context, []

    def fill_at_the_third_answer(cache: RunCache, anchor: str, site: str, probes: Tensor) -> None:
        kept.append(site)
        # After the check-in's six.
        if len(kept) == 6 + 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(cache, anchor, site, probes)

    monkeypatch.setattr(RunCache, "keep_context", fill_at_the_third_answer)
    with pytest.raises(Interrupted, match="go on with the round"):
        conductor(federation, files).run(1, 6)
    bodies, before = BodyUpdates.of(federation.root), kept[6:8]
    records = federation.zoo.snapshot().records(round=1)
    assert {record.site for record in records} == bodies.sites("", 1) == set(before)
    lines = Journal.of(federation.root / "rounds", 1).read()
    assert [(line.site, line.code) for line in lines] == [(site, "accepted") for site in before]
    (state,) = conductor(federation, files).run(0, 6)
    assert (state.step, len(state.accepted)) == ("done", 6)
    assert len(bodies.sites("", 1)) == 6
    # The third was asked again, the first two only at the check-in.
    assert set(kept[9 + 6 :]) == set(kept[:6]) - set(before)
    assert len(kept) == 9 + 6 + 4


class Killed(BaseException):
    """The end of the conducting process."""


def test_what_a_failed_round_could_not_commit_is_not_committed_by_the_next(tmp_path, monkeypatch):
    federation, files = prepared(tmp_path / "out")

    def kill(message: Message, context: Context) -> Message:
        raise Killed

    grid = LoopbackGrid(answering(kill), nodes(files))
    with pytest.raises(Killed):
        conductor(federation, files, grid=grid).run(1, 6)
    append, asked = Zoo.append, []

    def refuse_once(zoo: Zoo, new: Sequence[NewRecord]) -> Commit:
        asked.append(new)
        if len(asked) == 1:
            raise ZooError("a log entry is damaged")
        return append(zoo, new)

    monkeypatch.setattr(Zoo, "append", refuse_once)
    failed, done = conductor(federation, files).run(1, 6)
    assert (failed.number, failed.step, done.number, done.step) == (1, "failed", 2, "done")
    assert len(asked[0]) == 12
    assert federation.zoo.snapshot().records(round=1) == ()
    assert len(federation.zoo.snapshot().records(round=2)) == 12
